import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { after, describe, test } from 'node:test';
import { createForwarder, type Forwarder, type ForwarderOptions } from './forwarder.ts';
import { listen, rawService, send, TestStream } from './test-support.ts';

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanup of cleanups) cleanup();
});

function forward(url: string, options: Partial<ForwarderOptions> = {}): Forwarder {
  const forwarder = createForwarder({ mappings: { web: url }, ...options });
  cleanups.push(() => forwarder.close());
  return forwarder;
}

async function service(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(handler);
  cleanups.push(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${await listen(server)}`;
}

async function raw(answer: Parameters<typeof rawService>[0]) {
  const made = await rawService(answer);
  cleanups.push(() => made.close());
  return made;
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

describe('HTTP/1.1 to the service', () => {
  test('a small answer is one call on the stream, with the fields of the service as it wrote them', async () => {
    const url = await service((_request, response) => {
      response.writeHead(201, 'Made', ['X-One', '1', 'set-cookie', 'a=1', 'Set-Cookie', 'b=2', 'Content-Length', '5']);
      response.end('hello');
    });
    const stream = await send(forward(url)).over();
    assert.equal(stream.closed, 'ok');
    assert.equal(stream.calls, 1);
    assert.equal(stream.head.status, 201);
    assert.equal(stream.head.reason, 'Made');
    assert.deepEqual(stream.head.headers.slice(0, 8), [
      'X-One',
      '1',
      'set-cookie',
      'a=1',
      'Set-Cookie',
      'b=2',
      'Content-Length',
      '5',
    ]);
    assert.equal(stream.text, 'hello');
  });

  test('the request reaches the service with its target, field order and case, in one write with a small body', async () => {
    const { url, received } = await raw((socket) => socket.write(OK));
    const headers = [
      'hOST',
      'a.example',
      'X-B',
      '1',
      'x-a',
      'caf\xe9',
      'X-B',
      '2',
      'Connection',
      'close',
      'Transfer-Encoding',
      'chunked',
    ];
    const stream = await send(forward(url), { method: 'POST', target: '/p?q=%20', headers, body: 'abc' }).over();
    assert.equal(stream.closed, 'ok');
    assert.equal(
      received[0],
      'POST /p?q=%20 HTTP/1.1\r\nHost: a.example\r\nX-B: 1\r\nx-a: caf\xe9\r\nX-B: 2\r\nContent-Length: 3\r\n\r\nabc',
    );
    assert.equal(stream.credit, 3);
  });

  for (const [hostHeader, expected] of [
    ['preserve', 'web.example.org'],
    ['rewrite', 'local'],
    ['other.test', 'other.test'],
  ] as const) {
    test(`host header option ${hostHeader}`, async () => {
      const url = await service((request, response) => response.end(request.headers.host));
      const stream = await send(forward(url, { hostHeader })).over();
      assert.equal(stream.text, expected === 'local' ? url.slice('http://'.length) : expected);
    });
  }

  test('a body without Content-Length is chunked, with trailers, and its credit comes back', async () => {
    const url = await service(async (request, response) => {
      const body = await bodyOf(request);
      response.end(JSON.stringify([request.headers['transfer-encoding'], body.length, request.trailers]));
    });
    const stream = send(forward(url), { method: 'POST', end: false, body: 'x'.repeat(10) });
    stream.data('y'.repeat(100_000));
    stream.data('z');
    stream.endWith(['X-T', 'v', 'Content-Length', '7']);
    await stream.over();
    assert.deepEqual(JSON.parse(stream.text), ['chunked', 100_011, { 'x-t': 'v' }]);
    assert.equal(stream.credit, 100_011);
  });

  test('a body is streamed under its Content-Length', async () => {
    const url = await service(async (request, response) => {
      response.end(`${request.headers['content-length']} ${await bodyOf(request)}`);
    });
    const stream = send(forward(url), { method: 'PUT', headers: ['Host', 'h', 'content-length', '6'], end: false });
    stream.data('abc');
    stream.data('def');
    stream.data('', true);
    assert.equal((await stream.over()).text, '6 abcdef');
  });

  test('a body that contradicts its Content-Length never desynchronises the connection', async () => {
    const { url, received } = await raw(() => {});
    const forwarder = forward(url);
    const headers = ['Host', 'h', 'Content-Length', '3'];
    for (const body of ['ab', 'abcd']) {
      assert.equal((await send(forwarder, { method: 'POST', headers, body }).over()).closed, 'bad_request');
    }
    const long = send(forwarder, { method: 'POST', headers, end: false, body: 'ab' });
    await long.until(() => long.credit === 2);
    long.data('cGET /smuggled HTTP/1.1\r\n\r\n', true);
    assert.equal((await long.over()).closed, 'bad_request');
    const short = send(forwarder, { method: 'POST', headers, end: false, body: 'ab' });
    await short.until(() => short.credit === 2);
    short.data('', true);
    assert.equal((await short.over()).closed, 'bad_request');
    assert.equal(received.join('').includes('smuggled'), false);
  });

  test('two differing lengths or hosts, and CONNECT, are refused before the service sees anything', async () => {
    const { url, received } = await raw(() => {});
    const forwarder = forward(url);
    const codes = [];
    for (const request of [
      { headers: ['Content-Length', '3', 'Content-Length', '4'], body: 'abc' },
      { headers: ['Host', 'a', 'Host', 'b'] },
      { method: 'CONNECT' },
    ]) {
      codes.push((await send(forwarder, request).over()).closed);
    }
    assert.deepEqual(codes, ['bad_request', 'bad_request', 'method_not_allowed']);
    assert.deepEqual(received, []);
  });

  test('interim answers are passed on, 100-continue among them', async () => {
    const url = await service((request, response) => {
      response.writeEarlyHints({ link: '</a.css>; rel=preload' });
      request.resume().on('end', () => response.end('done'));
    });
    const stream = send(forward(url), { method: 'POST', headers: ['Host', 'h', 'Expect', '100-continue'], end: false });
    await stream.until(() => stream.heads.some(({ status }) => status === 100));
    stream.data('body', true);
    await stream.over();
    assert.deepEqual(stream.heads.map(({ status }) => status).sort(), [100, 103, 200]);
    assert.equal(stream.text, 'done');
  });

  test('trailers of the service are passed on', async () => {
    const url = await service((_request, response) => {
      response.writeHead(200, { Trailer: 'X-Sum' });
      response.write('abc');
      response.addTrailers({ 'X-Sum': '6' });
      response.end();
    });
    const stream = await send(forward(url)).over();
    assert.equal(stream.text, 'abc');
    assert.deepEqual(stream.trailers, ['X-Sum', '6']);
  });

  test('HEAD has no body and leaves the connection usable', async () => {
    let connections = 0;
    const { url } = await raw((socket, text, number) => {
      connections = number + 1;
      socket.write(text.startsWith('HEAD') ? 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n' : OK);
    });
    const forwarder = forward(url);
    const head = await send(forwarder, { method: 'HEAD' }).over();
    assert.equal(head.text, '');
    assert.deepEqual(head.head.headers, ['Content-Length', '99']);
    assert.equal((await send(forwarder).over()).text, 'ok');
    assert.equal(connections, 1);
  });

  test('bodies that wait for the visitor are not overwritten by later reads', async () => {
    const url = await service((request, response) => response.end((request.url ?? '').repeat(3000)));
    const forwarder = forward(url);
    const streams = [];
    for (let i = 0; i < 30; i++) streams.push(await send(forwarder, { target: `/${'abcdefghij'[i % 10]}${i}` }).over());
    for (const [i, stream] of streams.entries()) {
      assert.equal(stream.text, `/${'abcdefghij'[i % 10]}${i}`.repeat(3000));
    }
  });

  test('a body of many full reads arrives unchanged, the small answers behind it too', async () => {
    const large = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 31 + (i >> 9)) & 0xff));
    const url = await service((request, response) => response.end(request.url === '/large' ? large : request.url));
    const forwarder = forward(url);
    const streams = [];
    for (let i = 0; i < 60; i++)
      streams.push(await send(forwarder, { target: i % 20 === 0 ? '/large' : `/${i}` }).over());
    streams.forEach((stream, i) => {
      assert.ok(i % 20 === 0 ? stream.body.equals(large) : stream.text === `/${i}`, `answer ${i}`);
    });
  });

  test('a slow visitor stops the service, and nothing is lost when the visitor goes on', async () => {
    const size = 32 * 1024 * 1024;
    let produced = 0;
    const url = await service((_request, response) => {
      const block = Buffer.alloc(64 * 1024, 'b');
      const more = () => {
        while (produced < size) {
          produced += block.length;
          if (!response.write(block)) {
            response.once('drain', more);
            return;
          }
        }
        response.end();
      };
      more();
    });
    const stream = send(forward(url), { window: 100_000 });
    await stream.until(() => stream.window <= 0);
    const taken = stream.body.length;
    // A second request on a connection of its own shows that the event loop went on while the first stood still.
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(stream.body.length, taken);
    assert.ok(produced < size, 'the service was stopped');
    stream.open();
    await stream.over();
    assert.equal(stream.closed, 'ok');
    assert.equal(stream.body.length, size);
  });

  test('a service that does not read gives no credit back until it does', async () => {
    const size = 24 * 1024 * 1024;
    let request: IncomingMessage | undefined;
    const url = await service((incoming, response) => {
      request = incoming;
      incoming.on('end', () => response.end('read'));
    });
    const stream = send(forward(url), { method: 'POST', end: false });
    const block = Buffer.alloc(256 * 1024);
    for (let sent = 0; sent < size; sent += block.length) stream.data(block, sent + block.length >= size);
    while (request === undefined) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(stream.credit < size);
    request.resume();
    await stream.over();
    assert.equal(stream.text, 'read');
    assert.equal(stream.credit, size);
  });

  test('an answer before the end of the request finishes the stream, and its connection is not used again', async () => {
    const { url, received } = await raw((socket, text) => {
      if (text.includes('\r\n\r\n')) socket.write('HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno');
    });
    const forwarder = forward(url);
    const early = await send(forwarder, { method: 'POST', end: false, body: 'part' }).over();
    assert.deepEqual([early.closed, early.finished, early.text, early.head.status], ['ok', true, 'no', 413]);
    await send(forwarder).over();
    assert.equal(received.length, 2);
  });

  test('a service that closes half way breaks the body instead of ending it', async () => {
    for (const answer of [
      'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n',
    ]) {
      const { url } = await raw((socket) => socket.end(answer));
      const stream = await send(forward(url)).over();
      assert.deepEqual([stream.closed, stream.text, stream.sentEnd], ['connection_closed', 'half', false]);
    }
  });

  test('a body that ends with the connection is complete', async () => {
    const { url } = await raw((socket) => socket.end('HTTP/1.0 200 OK\r\n\r\nall of it'));
    const stream = await send(forward(url)).over();
    assert.deepEqual([stream.closed, stream.text], ['ok', 'all of it']);
  });

  test('but it is not when the connection is reset', async () => {
    const { url } = await raw((socket) => socket.write('HTTP/1.0 200 OK\r\n\r\npart', () => socket.resetAndDestroy()));
    assert.equal((await send(forward(url)).over()).closed, 'connection_closed');
  });

  test('faults before an answer have codes of their own', async () => {
    const closing = await raw((socket) => socket.end());
    const garbage = await raw((socket) => socket.write('SSH-2.0-x\r\n'));
    const silent = await raw(() => {});
    const gone = await rawService(() => {});
    gone.close();
    assert.equal((await send(forward(closing.url)).over()).closed, 'connection_closed');
    assert.equal((await send(forward(garbage.url)).over()).closed, 'bad_response');
    assert.equal((await send(forward(silent.url, { requestTimeoutMs: 50 })).over()).closed, 'timeout');
    assert.equal((await send(forward(gone.url)).over()).closed, 'service_unreachable');
    assert.equal((await send(forward(silent.url), { tunnel: 'other' }).over()).closed, 'tunnel_not_found');
  });

  test('the time for an answer starts again with each piece of the body', async () => {
    const { url } = await raw((socket, text) => {
      if (text.includes('0\r\n\r\n')) socket.write(OK);
    });
    const stream = send(forward(url, { requestTimeoutMs: 200 }), { method: 'POST', end: false, body: 'a' });
    const started = performance.now();
    const feed = setInterval(() => {
      if (performance.now() - started < 500) stream.data('b');
      else {
        clearInterval(feed);
        stream.data('', true);
      }
    }, 40);
    assert.equal((await stream.over()).closed, 'ok');
  });

  test('an answer that has begun may take any time', async () => {
    const { url } = await raw((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab');
      setTimeout(() => socket.write('cd'), 200);
    });
    assert.equal((await send(forward(url, { requestTimeoutMs: 50 })).over()).text, 'abcd');
  });

  test('a visitor who goes away closes the socket to the service', async () => {
    const { url, sockets } = await raw((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart'));
    const forwarder = forward(url);
    const stream = send(forwarder);
    await stream.until(() => stream.heads.length > 0);
    const closed = once(sockets[0] ?? assert.fail(), 'end');
    stream.abort();
    await closed;
    assert.equal(forwarder.active, 0);
  });

  test('the hook gets one call for each request', async () => {
    const { url } = await raw((socket) => socket.write(OK));
    const calls: unknown[] = [];
    const forwarder = forward(url, { onRequest: ({ ms, ...info }) => calls.push([info, ms >= 0]) });
    await send(forwarder, { method: 'POST', target: '/x', body: 'abc' }).over();
    assert.deepEqual(calls, [
      [{ tunnel: 'web', method: 'POST', target: '/x', status: 200, code: undefined, bytesIn: 3, bytesOut: 2 }, true],
    ]);
    const aborted = send(forwarder);
    aborted.abort();
    assert.deepEqual(calls[1], [
      { tunnel: 'web', method: 'GET', target: '/', status: 0, code: 'canceled', bytesIn: 0, bytesOut: 0 },
      true,
    ]);
    assert.equal(calls.length, 2);
  });

  test('close ends what is in progress and refuses more', async () => {
    const { url } = await raw(() => {});
    const forwarder = forward(url);
    const stream = send(forwarder);
    assert.equal(forwarder.active, 1);
    forwarder.close();
    assert.equal(stream.closed, 'connection_closed');
    assert.equal(forwarder.active, 0);
    assert.equal((await send(forwarder).over()).closed, 'node_draining');
  });

  test('a reset never comes before accept has returned', async () => {
    const forwarder = forward('http://127.0.0.1:1', { maxConnections: 0, maxWaiting: 0 });
    for (const tunnel of ['web', 'none']) {
      const stream = new TestStream(true);
      const sink = forwarder.accept(
        stream,
        { method: 'GET', target: '/', tunnel, meta: '', headers: [] },
        undefined,
        true,
      );
      assert.equal(stream.closed, undefined);
      stream.attach(sink);
      await stream.over();
      assert.equal(stream.closed, tunnel === 'web' ? 'overloaded' : 'tunnel_not_found');
    }
  });
});
