import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  constants,
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { after, describe, test } from 'node:test';
import { createForwarder, type Forwarder, type ForwarderOptions } from './forwarder.ts';
import { listen, rawService, selfSigned, send } from './test-support.ts';

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanup of cleanups) cleanup();
});

function forward(url: string, options: Partial<ForwarderOptions> = {}): Forwarder {
  const forwarder = createForwarder({ mappings: { web: url }, requestTimeoutMs: 2000, ...options });
  cleanups.push(() => forwarder.close());
  return forwarder;
}

type Handler = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: string[]) => void;

async function serve(server: Http2Server, handler: Handler) {
  const sessions: ServerHttp2Session[] = [];
  server.on('session', (session) => sessions.push(session));
  server.on('stream', (stream: ServerHttp2Stream, headers, _flags, raw) => {
    stream.on('error', () => {});
    handler(stream, headers, raw);
  });
  const port = await listen(server);
  cleanups.push(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  return { url: `h2c://127.0.0.1:${port}`, port, sessions };
}

const grpc: Handler = (stream) => {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  stream.on('end', () => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'grpc-message': 'fine' }));
    stream.end(Buffer.concat(chunks));
  });
};

describe('HTTP/2 to the service', () => {
  test('a gRPC call: headers, both bodies and trailers', async () => {
    let seen: string[] = [];
    const { url } = await serve(createServer(), (stream, headers, raw) => {
      seen = raw;
      grpc(stream, headers, raw);
    });
    const headers = [
      'Host',
      'a.example',
      'TE',
      'trailers',
      'Content-Type',
      'application/grpc',
      'X-Dup',
      '1',
      'x-dup',
      'caf\xe9',
      'Connection',
      'x',
      'Upgrade',
      'h2c',
    ];
    const stream = send(forward(url), { method: 'POST', target: '/pkg.Svc/Call', headers, end: false, body: 'ab' });
    stream.data('cd');
    stream.data('', true);
    await stream.over();
    assert.deepEqual([stream.closed, stream.head.status, stream.text], ['ok', 200, 'abcd']);
    assert.deepEqual(stream.trailers, ['grpc-status', '0', 'grpc-message', 'fine']);
    assert.equal(stream.credit, 4);
    assert.deepEqual(seen, [
      ...[':method', 'POST', ':scheme', 'http', ':authority', 'a.example', ':path', '/pkg.Svc/Call', 'te', 'trailers'],
      ...['content-type', 'application/grpc', 'x-dup', '1', 'x-dup', 'caf\xe9'],
    ]);
  });

  test('trailers of the request, interim heads and an answer of trailers only', async () => {
    const { url } = await serve(createServer(), (stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a>' });
      stream.on('trailers', (trailers) => {
        stream.respond({ ':status': 200, 'grpc-status': '12', got: String(trailers['x-t']) }, { endStream: true });
      });
      stream.resume();
    });
    const stream = send(forward(url), { method: 'POST', end: false, body: 'x' });
    stream.endWith(['X-T', 'v']);
    await stream.over();
    assert.deepEqual(
      stream.heads.map(({ status }) => status),
      [103, 200],
    );
    assert.equal(stream.closed, 'ok');
    assert.deepEqual(stream.head.headers.slice(0, 4), ['grpc-status', '12', 'got', 'v']);
    assert.equal(stream.trailers, undefined);
  });

  // node:http2 throws for a field that may stand once, and threw out of an event: the process ended.
  test('trailers that HTTP/2 cannot send fail their request and nothing else', async () => {
    const { url } = await serve(createServer(), (stream) => {
      stream.on('error', () => {});
      stream.resume();
    });
    const forwarder = forward(url);
    const stream = send(forwarder, { method: 'POST', end: false, body: 'x' });
    stream.endWith(['etag', 'a', 'etag', 'b']);
    await stream.over();
    assert.equal(stream.closed, 'bad_request');
  });

  test('both directions at once, as in a bidirectional call', async () => {
    const { url } = await serve(createServer(), (stream) => {
      stream.respond({ ':status': 200 });
      stream.on('data', (chunk: Buffer) => stream.write(chunk.toString().toUpperCase()));
      stream.on('end', () => stream.end());
    });
    const stream = send(forward(url), { method: 'POST', end: false });
    await stream.until(() => stream.heads.length > 0);
    stream.data('one');
    await stream.until(() => stream.text === 'ONE');
    stream.data('two', true);
    await stream.over();
    assert.deepEqual([stream.closed, stream.text], ['ok', 'ONETWO']);
  });

  test('backpressure holds both ways', async () => {
    const size = 8 * 1024 * 1024;
    let produced = 0;
    let service: ServerHttp2Stream | undefined;
    const { url } = await serve(createServer(), (stream, headers) => {
      if (headers[':path'] === '/ping') {
        stream.respond({ ':status': 204 }, { endStream: true });
        return;
      }
      service = stream;
      stream.respond({ ':status': 200 });
      const block = Buffer.alloc(64 * 1024);
      const more = () => {
        while (produced < size) {
          produced += block.length;
          if (!stream.write(block)) {
            stream.once('drain', more);
            return;
          }
        }
        if (stream.readableEnded) stream.end();
        else stream.once('end', () => stream.end());
      };
      more();
    });
    const forwarder = forward(url);
    const stream = send(forwarder, { method: 'POST', end: false, window: 1000 });
    await stream.until(() => stream.window <= 0);
    for (let i = 0; i < 64; i++) stream.data(Buffer.alloc(size / 64), i === 63);
    for (let i = 0; i < 100; i++) await send(forwarder, { target: '/ping' }).over();
    assert.ok(stream.bodyBytes < size / 8);
    assert.ok(produced < size);
    assert.ok(stream.credit < size / 8);
    service?.resume();
    stream.open();
    await stream.over();
    assert.deepEqual([stream.closed, stream.bodyBytes, stream.credit], ['ok', size, size]);
  });

  test('resets of the service have codes of their own', async () => {
    const { url } = await serve(createServer(), (stream, headers) => stream.close(Number(headers['x-code'])));
    const forwarder = forward(url);
    const codes = [];
    for (const code of [
      constants.NGHTTP2_CANCEL,
      constants.NGHTTP2_REFUSED_STREAM,
      constants.NGHTTP2_ENHANCE_YOUR_CALM,
      constants.NGHTTP2_INTERNAL_ERROR,
    ]) {
      codes.push(
        (await send(forwarder, { method: 'POST', headers: ['Host', 'h', 'x-code', String(code)] }).over()).closed,
      );
    }
    assert.deepEqual(codes, ['connection_closed', 'not_processed', 'overloaded', 'connection_closed']);
  });

  test('an answer that is reset half way is broken off, not ended', async () => {
    const frame = (type: number, flags: number, stream: number, payload: number[]) => {
      return Buffer.from([0, 0, payload.length, type, flags, 0, 0, 0, stream, ...payload]);
    };
    // Node's own server ends a stream before it resets it, so the frames are written by hand.
    const settings = frame(4, 0, 0, []);
    const okHead = frame(1, 4, 1, [0x88]);
    const half = frame(0, 0, 1, [0x68, 0x61, 0x6c, 0x66]);
    for (const code of [constants.NGHTTP2_CANCEL, constants.NGHTTP2_INTERNAL_ERROR]) {
      const { url, close } = await rawService((socket, text) => {
        if (text.startsWith('PRI')) socket.write(settings);
        if (text.includes('\x01\x05\0\0\0\x01')) {
          socket.write(Buffer.concat([okHead, half, frame(3, 0, 1, [0, 0, 0, code])]));
        }
      });
      cleanups.push(close);
      const stream = await send(forward(url.replace('http:', 'h2c:'))).over();
      assert.deepEqual(
        [stream.sentEnd, stream.closed, stream.text],
        [false, 'connection_closed', 'half'],
        `code ${code}`,
      );
    }
  });

  test('a visitor who goes away cancels the stream', async () => {
    let reset: Promise<unknown> | undefined;
    let code: number | undefined;
    const { url } = await serve(createServer(), (stream) => {
      reset = once(stream, 'close').then(() => (code = stream.rstCode));
      stream.respond({ ':status': 200 });
      stream.write('x');
    });
    const forwarder = forward(url);
    const stream = send(forwarder);
    await stream.until(() => stream.bodyBytes > 0);
    stream.abort();
    await reset;
    assert.equal(code, constants.NGHTTP2_CANCEL);
    assert.equal(forwarder.active, 0);
  });

  test('an answer before the end of the request finishes the stream', async () => {
    const { url } = await serve(createServer(), (stream) => {
      stream.respond({ ':status': 413 });
      stream.end('no');
    });
    const stream = await send(forward(url), { method: 'POST', end: false, body: 'x' }).over();
    assert.deepEqual([stream.closed, stream.finished, stream.text], ['ok', true, 'no']);
  });

  test('the service decides how many streams a session has, the others get sessions of their own', async () => {
    let running = 0;
    let most = 0;
    const release: (() => void)[] = [];
    const { url, sessions } = await serve(createServer({ settings: { maxConcurrentStreams: 2 } }), (stream) => {
      most = Math.max(most, ++running);
      release.push(() => {
        running--;
        stream.respond({ ':status': 200 });
        stream.end('ok');
      });
      if (running === 6) for (const answer of release.splice(0)) answer();
    });
    const forwarder = forward(url);
    const streams = Array.from({ length: 6 }, () => send(forwarder));
    for (const stream of streams) assert.equal((await stream.over()).text, 'ok');
    assert.equal(sessions.length, 3);
    assert.equal(most, 6);
  });

  test('after a GOAWAY or a lost session the next request gets a new one', async () => {
    const { url, sessions } = await serve(createServer(), (stream) => {
      stream.respond({ ':status': 200 });
      stream.end('ok');
    });
    const forwarder = forward(url);
    for (let i = 0; i < 3; i++) {
      assert.equal((await send(forwarder).over()).text, 'ok');
      if (i === 0) sessions[0]?.close();
      else sessions[1]?.destroy();
    }
    assert.equal(sessions.length, 3);
  });

  test('TLS with ALPN h2', async () => {
    const { port } = await serve(createSecureServer(selfSigned()), grpc);
    const stream = await send(forward(`h2://localhost:${port}`), { method: 'POST', body: 'secret' }).over();
    assert.deepEqual([stream.closed, stream.text], ['ok', 'secret']);
  });

  test('faults before an answer have codes of their own', async () => {
    const garbage = await rawService((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    const silent = await rawService(() => {});
    cleanups.push(garbage.close, silent.close);
    const gone = await rawService(() => {});
    gone.close();
    const h2c = (url: string) => url.replace('http:', 'h2c:');
    assert.equal((await send(forward(h2c(garbage.url))).over()).closed, 'bad_response');
    assert.equal((await send(forward(h2c(silent.url), { connectTimeoutMs: 50 })).over()).closed, 'bad_response');
    assert.equal((await send(forward(h2c(gone.url))).over()).closed, 'service_unreachable');
    const { url } = await serve(createServer(), () => {});
    assert.equal((await send(forward(url, { requestTimeoutMs: 50 })).over()).closed, 'timeout');
    assert.equal((await send(forward(url), { method: 'CONNECT' }).over()).closed, 'method_not_allowed');
    assert.equal(
      (await send(forward(url), { headers: ['content-length', '1', 'content-length', '2'] }).over()).closed,
      'bad_request',
    );
  });
});
