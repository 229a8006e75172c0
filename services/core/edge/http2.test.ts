import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { answer, field, get, noVisitors, Recorder, startListener, visit } from './edge-testing.ts';
import type { VisitorExchange } from './exchange.ts';
import type { PublicListener } from './listener.ts';

const HEAD = { ':authority': 'api.culvert.test' };

function open(t: TestContext, listener: PublicListener): ClientHttp2Session {
  const session = connect(`http://127.0.0.1:${listener.address.port}`);
  session.on('error', () => {});
  t.after(() => session.destroy());
  return session;
}

interface Answer {
  readonly headers: Record<string, unknown>;
  readonly body: string;
  readonly trailers: Record<string, unknown> | undefined;
  readonly rstCode: number;
}

async function complete(stream: ClientHttp2Stream): Promise<Answer> {
  let headers: Record<string, unknown> = {};
  let trailers: Record<string, unknown> | undefined;
  let body = '';
  stream.on('response', (each) => {
    headers = { ...each };
  });
  stream.on('trailers', (each) => {
    trailers = Object.fromEntries(Object.entries(each));
  });
  stream.on('data', (chunk: Buffer) => {
    body += chunk.toString('latin1');
  });
  stream.on('error', () => {});
  await new Promise((resolve) => stream.on('close', resolve));
  return { headers, body, trailers, rstCode: stream.rstCode };
}

function ask(session: ClientHttp2Session, headers: OutgoingHttpHeaders = {}, body?: string): Promise<Answer> {
  const stream = session.request({ ...HEAD, ':path': '/', ...headers }, { endStream: body === undefined });
  if (body !== undefined) stream.end(body, 'latin1');
  return complete(stream);
}

describe('HTTP/2 by prior knowledge', () => {
  test('works on the same port as HTTP/1', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, exchange.protocol));
    const session = open(t, listener);
    assert.equal((await ask(session)).body, 'h2');
    await visit(t, listener, get()).until('http/1.1');
    assert.equal((await ask(session)).body, 'h2');
  });

  test('is recognised when the preface comes byte by byte', async (t) => {
    const listener = await startListener(t, () => {});
    const socket = connectTcp(listener.address.port, '127.0.0.1').setNoDelay();
    t.after(() => socket.destroy());
    for (const byte of 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n') {
      socket.write(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.write(Buffer.from('000000040000000000', 'hex'));
    const [first] = (await once(socket, 'data')) as [Buffer];
    assert.equal(first[3], 4, 'a SETTINGS frame');
  });

  test('carries what the proxy needs to know', async (t) => {
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      seen.resolve(exchange);
      answer(exchange, 'ok');
    });
    await ask(
      open(t, listener),
      { ':method': 'POST', ':path': '/p?q', accept: 'text/html', cookie: ['a=1', 'b=2'], 'content-length': 2 },
      'hi',
    );
    const exchange = await seen.promise;
    const { method, target, host, tunnelName, accept, remoteAddress, hasBody, contentLength } = exchange;
    assert.deepEqual(
      { method, target, host, tunnelName, accept, remoteAddress, hasBody, contentLength },
      {
        method: 'POST',
        target: '/p?q',
        host: 'api.culvert.test',
        tunnelName: 'api',
        accept: 'text/html',
        remoteAddress: '127.0.0.1',
        hasBody: true,
        contentLength: 2,
      },
    );
    assert.deepEqual(exchange.headers.slice(0, 2), ['Host', 'api.culvert.test']);
    assert.deepEqual(field(exchange.headers, 'cookie'), ['a=1; b=2']);
    assert.ok(exchange.headers.every((text) => !text.startsWith(':')));
  });

  test('streams bodies and trailers both ways', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.respond(200, 'OK', ['X-A', '1', 'Trailer', 'x-sum'], undefined, false);
      void recorder.ended.then(() => {
        exchange.write(Buffer.from(`got ${recorder.body}`));
        exchange.trailers(['X-Sum', String(field(recorder.trailers ?? [], 'x-sum')), 'Connection', 'close']);
      });
    });
    const stream = open(t, listener).request({ ...HEAD, ':method': 'POST', ':path': '/' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }));
    const answered = complete(stream);
    stream.write('one ');
    stream.end('two');
    const { headers, body, trailers, rstCode } = await answered;
    assert.equal(headers['x-a'], '1');
    assert.equal(body, 'got one two');
    assert.deepEqual(trailers, { 'x-sum': '7' });
    assert.equal(rstCode, 0);
  });

  // `constructor` was looked up on Object.prototype and threw out of an event: the process ended.
  test('sends trailers with names that objects have by themselves', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.start(new Recorder());
      exchange.respond(200, 'OK', [], Buffer.from('x'), false);
      exchange.trailers(['constructor', 'a', '__proto__', 'b', 'toString', 'c']);
    });
    const { body, trailers } = await ask(open(t, listener));
    assert.equal(body, 'x');
    assert.equal(trailers?.['constructor'], 'a');
    assert.equal(trailers?.['tostring'], 'c');
  });

  test('sends the trailers of an answer that comes before the end of the request', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.start(new Recorder());
      exchange.respond(200, 'OK', [], undefined, false);
      exchange.trailers(['grpc-status', '7']);
    });
    const stream = open(t, listener).request({ ...HEAD, ':method': 'POST', ':path': '/' });
    stream.write('the first of many');
    const { trailers } = await complete(stream);
    assert.deepEqual(trailers, { 'grpc-status': '7' });
  });

  test('sends interim responses', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.informational(100, []);
      exchange.informational(103, ['Link', '</a>', 'Link', '</b>', 'Keep-Alive', 'x']);
      answer(exchange, 'ok');
    });
    const stream = open(t, listener).request({ ...HEAD, ':path': '/' });
    const interim: unknown[] = [];
    stream.on('headers', (headers) => {
      const { ':status': status, link, 'keep-alive': keepAlive } = headers;
      interim.push(status, link, keepAlive);
    });
    assert.equal((await complete(stream)).body, 'ok');
    assert.deepEqual(interim, [100, undefined, undefined, 103, '</a>, </b>', undefined]);
  });

  test('never shows connection-specific fields, and keeps duplicates and Latin-1', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(
        200,
        'OK',
        [
          'Connection',
          'keep-alive',
          'Keep-Alive',
          'x',
          'Transfer-Encoding',
          'chunked',
          'Set-Cookie',
          'a',
          'Set-Cookie',
          'b',
          'X-L',
          'caf\xe9',
          'ETag',
          '1',
          'ETag',
          '2',
        ],
        Buffer.from('ok'),
        true,
      );
    });
    const { headers, body } = await ask(open(t, listener));
    assert.equal(body, 'ok');
    assert.deepEqual(headers['set-cookie'], ['a', 'b']);
    assert.equal(headers['x-l'], 'caf\xe9');
    for (const name of ['connection', 'keep-alive', 'transfer-encoding']) assert.equal(headers[name], undefined);
  });

  test('answers HEAD, 204, 205 and 304 without a body', async (t) => {
    const listener = await startListener(t, (exchange) => {
      const status = exchange.method === 'HEAD' ? 200 : Number(exchange.target.slice(1));
      exchange.respond(status, '', ['Content-Length', '5'], Buffer.from('hel'), false);
      exchange.write(Buffer.from('lo'));
      exchange.end();
    });
    const session = open(t, listener);
    for (const [method, path] of [
      ['HEAD', '/'],
      ['GET', '/204'],
      ['GET', '/304'],
    ] as const) {
      const { headers, body, rstCode } = await ask(session, { ':method': method, ':path': path });
      assert.deepEqual([body, rstCode], ['', 0], path);
      assert.equal(headers['content-length'], path === '/204' ? undefined : '5');
    }
    assert.equal((await ask(session, { ':path': '/200' })).body, 'hello');
  });

  test('turns what is not valid HTTP into 502 bad_response', async (t) => {
    const cases: [number, string[]][] = [
      [200, ['X-A', 'a\0b']],
      [200, ['X-A', 'a\nb']],
      [200, ['X A', 'b']],
      [200, ['Content-Length', '1', 'Content-Length', '2']],
      [700, []],
      [101, []],
    ];
    const listener = await startListener(t, (exchange) => {
      const [status, headers] = cases[Number(exchange.target.slice(1))] ?? [200, []];
      assert.equal(exchange.respond(status, '', headers, undefined, false), false);
      exchange.write(Buffer.from('x'));
    });
    const session = open(t, listener);
    for (const i of cases.keys()) {
      const { headers } = await ask(session, { ':path': `/${i}` });
      assert.equal(headers[':status'], 502);
      assert.equal(headers['x-culvert-error'], 'bad_response');
    }
  });

  test('resets the stream when a response breaks off or is too short', async (t) => {
    const listener = await startListener(t, (exchange) => {
      const short = exchange.target === '/short';
      exchange.respond(200, 'OK', short ? ['Content-Length', '9'] : [], Buffer.from('part'), false);
      if (short) exchange.end();
      else setImmediate(() => exchange.fail('connection_closed'));
    });
    const session = open(t, listener);
    for (const path of ['/short', '/break']) {
      assert.equal((await ask(session, { ':path': path })).rstCode, constants.NGHTTP2_INTERNAL_ERROR);
    }
  });

  test('reports a visitor that resets its stream or its connection', async (t) => {
    let recorder = new Recorder();
    let began = Promise.withResolvers<void>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      began.resolve();
    });
    const session = open(t, listener);
    const stream = session.request({ ...HEAD, ':path': '/' });
    stream.on('error', () => {});
    await began.promise;
    stream.close(constants.NGHTTP2_CANCEL);
    await recorder.aborted;

    recorder = new Recorder();
    began = Promise.withResolvers<void>();
    session.request({ ...HEAD, ':path': '/', ':method': 'POST' }, { endStream: false }).on('error', () => {});
    await began.promise;
    session.destroy();
    await recorder.aborted;
    assert.equal(recorder.aborts, 1);
    await noVisitors(listener);
  });

  test('answers before the request body is complete, and lets the visitor stop', async (t) => {
    const listener = await startListener(t, (exchange) => exchange.fail('tunnel_not_found'));
    const stream = open(t, listener).request({ ...HEAD, ':method': 'POST', ':path': '/' });
    stream.write('never ending');
    const { headers, rstCode } = await complete(stream);
    assert.deepEqual([headers[':status'], rstCode], [404, 0]);
  });

  test('reports backpressure, the drain and the end', async (t) => {
    const recorder = new Recorder();
    const full = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.respond(200, 'OK', [], undefined, false);
      while (exchange.write(Buffer.alloc(64 * 1024)));
      full.resolve(exchange);
    });
    const stream = open(t, listener).request({ ...HEAD, ':path': '/' });
    stream.pause();
    const exchange = await full.promise;
    stream.resume();
    while (recorder.drains === 0) await new Promise((resolve) => setImmediate(resolve));
    exchange.end();
    await recorder.finished;
    assert.equal(recorder.aborts, 0);
  });

  test('pushes back on uploads while paused', async (t) => {
    const recorder = new Recorder();
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.pause();
      seen.resolve(exchange);
    });
    const stream = open(t, listener).request({ ...HEAD, ':method': 'POST', ':path': '/' });
    const size = 8 * 1024 * 1024;
    stream.end(Buffer.alloc(size));
    const exchange = await seen.promise;
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(recorder.body.length, 0);
    exchange.resume();
    await recorder.ended;
    assert.equal(recorder.body.length, size);
  });
});

describe('hostile HTTP/2 requests', () => {
  const cases: [string, OutgoingHttpHeaders, number, string][] = [
    ['an authority that is no host', { ':authority': 'a b' }, 400, 'bad_request'],
    ['user information in the authority', { ':authority': 'u@a.example' }, 400, 'bad_request'],
    ['another Host', { host: 'evil.example' }, 400, 'bad_request'],
    ['a fragment in the path', { ':path': '/a#b' }, 400, 'bad_request'],
    ['the path * with GET', { ':path': '*' }, 400, 'bad_request'],
  ];
  for (const [name, headers, status, code] of cases) {
    test(`${name}: ${status} ${code}, and no handler`, async (t) => {
      const listener = await startListener(t, () => assert.fail('handled'));
      const result = await ask(open(t, listener), headers);
      const refused = result.headers[':status'] === status && result.headers['x-culvert-error'] === code;
      assert.ok(refused || result.rstCode === constants.NGHTTP2_PROTOCOL_ERROR, JSON.stringify(result));
    });
  }

  test('CONNECT: 405 method_not_allowed', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'));
    const stream = open(t, listener).request({ ':method': 'CONNECT', ':authority': 'a.example:443' });
    const { headers } = await complete(stream);
    assert.deepEqual([headers[':status'], headers['x-culvert-error']], [405, 'method_not_allowed']);
  });

  test('connection-specific fields are refused by nghttp2', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'));
    const session = connectTcp(listener.address.port, '127.0.0.1');
    t.after(() => session.destroy());
    // HPACK without Huffman: the four pseudo fields, then "connection: x" as a literal.
    const literal = (name: string, value: string): Buffer =>
      Buffer.concat([
        Buffer.from([0, name.length]),
        Buffer.from(name),
        Buffer.from([value.length]),
        Buffer.from(value),
      ]);
    const block = Buffer.concat([
      Buffer.from([0x82, 0x84, 0x86]),
      literal(':authority', 'a.example'),
      literal('connection', 'x'),
    ]);
    const header = Buffer.from([0, 0, block.length, 1, 5, 0, 0, 0, 1]);
    session.write(
      Buffer.concat([
        Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
        Buffer.from('000000040000000000', 'hex'),
        header,
        block,
      ]),
    );
    let bytes = Buffer.alloc(0);
    const reset = Buffer.from('0000040300000000010000', 'hex');
    while (!bytes.includes(reset)) {
      const [chunk] = (await once(session, 'data')) as [Buffer];
      bytes = Buffer.concat([bytes, chunk]);
    }
  });

  test('a flood of resets ends the connection', async (t) => {
    const listener = await startListener(t, (exchange) => exchange.start(new Recorder()));
    const socket = connectTcp(listener.address.port, '127.0.0.1');
    t.after(() => socket.destroy());
    socket.on('error', () => {});
    socket.resume();
    socket.write(
      Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), Buffer.from('000000040000000000', 'hex')]),
    );
    const authority = Buffer.from('a.example');
    const block = Buffer.concat([Buffer.from([0x82, 0x84, 0x86, 0x01, authority.length]), authority]);
    for (let id = 1; id < 6_000; id += 2) {
      const head = Buffer.from([0, 0, block.length, 1, 5, 0, 0, id >> 8, id & 0xff]);
      const reset = Buffer.from([0, 0, 4, 3, 0, 0, 0, id >> 8, id & 0xff, 0, 0, 0, 8]);
      socket.write(Buffer.concat([head, block, reset]));
    }
    await once(socket, 'close');
    await noVisitors(listener);
  });
});
