import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { answer, field, get, Recorder, startListener, visit } from './edge-testing.ts';
import type { VisitorExchange } from './exchange.ts';

const UPGRADE = get('/ws', 'Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n');
const ACCEPT = ['Upgrade', 'websocket', 'Connection', 'Upgrade', 'Sec-WebSocket-Accept', 's', 'Content-Length', '0'];

describe('an upgrade', () => {
  test('is forwarded as one, and carries bytes both ways with the service speaking first', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      assert.equal(exchange.isUpgrade, true);
      assert.deepEqual(field(exchange.headers, 'connection'), ['Upgrade']);
      assert.deepEqual(field(exchange.headers, 'upgrade'), ['websocket']);
      assert.deepEqual(field(exchange.headers, 'sec-websocket-key'), ['k']);
      exchange.start(recorder);
      setImmediate(() => {
        assert.equal(exchange.switchProtocols(ACCEPT, Buffer.from('first ')), true);
        assert.equal(exchange.headSent, true);
        exchange.write(Buffer.from('second'));
      });
    });
    const visitor = visit(t, listener, `${UPGRADE}early`);
    const received = await visitor.until('first second');
    assert.equal(
      received,
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\nfirst second',
    );
    visitor.send(' and late');
    while (recorder.body !== 'early and late') await new Promise((resolve) => setImmediate(resolve));
  });

  test('closes each half by itself: the visitor first', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.switchProtocols(ACCEPT, undefined);
      void recorder.ended.then(() => {
        exchange.write(Buffer.from(`got ${recorder.body}`));
        exchange.end();
      });
    });
    const visitor = visit(t, listener, UPGRADE);
    await visitor.until('\r\n\r\n');
    visitor.socket.end('bye');
    assert.match(await visitor.untilEnd(), /got bye$/);
    await recorder.finished;
    assert.equal(recorder.aborts, 0);
  });

  test('closes each half by itself: the service first', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.switchProtocols(ACCEPT, Buffer.from('bye'));
      exchange.end();
    });
    const visitor = visit(t, listener, UPGRADE);
    await visitor.untilEnd();
    visitor.socket.end('still here');
    await recorder.ended;
    assert.equal(recorder.body, 'still here');
    await recorder.finished;
  });

  test('that the service declines is answered like any request, and the connection ends', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.start(new Recorder());
      exchange.respond(403, 'Forbidden', [], undefined, false);
      exchange.write(Buffer.alloc(300_000, 'n'));
      exchange.write(Buffer.from('no'));
      exchange.end();
    });
    const received = await visit(t, listener, UPGRADE).untilEnd();
    assert.match(received, /^HTTP\/1\.1 403 Forbidden\r\n[\s\S]*Connection: close\r\n[\s\S]*no\r\n0\r\n\r\n$/);
  });

  test('that the service declines reports backpressure, and the drain', async (t) => {
    const recorder = new Recorder();
    const full = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.respond(200, 'OK', [], undefined, false);
      while (exchange.write(Buffer.alloc(32 * 1024 * 1024)));
      full.resolve(exchange);
    });
    const visitor = visit(t, listener, UPGRADE);
    visitor.socket.pause();
    const exchange = await full.promise;
    assert.equal(recorder.drains, 0);
    visitor.socket.resume();
    while (recorder.drains === 0) await once(visitor.socket, 'data');
    exchange.end();
    assert.match((await visitor.untilEnd()).slice(-20), /\r\n0\r\n\r\n$/);
  });

  test('that fails gets an error reply', async (t) => {
    const listener = await startListener(t, (exchange) => exchange.fail('agent_offline'));
    assert.match(await visit(t, listener, UPGRADE).untilEnd(), /^HTTP\/1\.1 502 [\s\S]*agent_offline/);
  });

  test('with an invalid 101 becomes 502', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.start(new Recorder());
      assert.equal(exchange.switchProtocols(['X-A', 'a\r\nb'], undefined), false);
    });
    assert.match(await visit(t, listener, UPGRADE).untilEnd(), /^HTTP\/1\.1 502 [\s\S]*bad_response/);
  });

  test('that nobody asked for becomes 502', async (t) => {
    const listener = await startListener(t, (exchange) => {
      assert.equal(exchange.switchProtocols(ACCEPT, undefined), false);
    });
    await visit(t, listener, get()).until('bad_response');
  });

  test('reports a visitor that is gone, and an abort of the service resets the connection', async (t) => {
    const recorder = new Recorder();
    let exchanges: VisitorExchange[] = [];
    const listener = await startListener(t, (exchange) => {
      exchanges.push(exchange);
      exchange.start(recorder);
      exchange.switchProtocols(ACCEPT, undefined);
    });
    const gone = visit(t, listener, UPGRADE);
    await gone.until('\r\n\r\n');
    gone.socket.resetAndDestroy();
    await recorder.aborted;

    exchanges = [];
    const other = visit(t, listener, UPGRADE);
    await other.until('\r\n\r\n');
    exchanges[0]?.fail('connection_closed');
    await other.closed;
    assert.equal((other.error as NodeJS.ErrnoException | undefined)?.code, 'ECONNRESET');
  });

  test('pushes back both ways', async (t) => {
    let paused: VisitorExchange | undefined;
    const recorder = new Recorder(() => paused?.pause());
    const switched = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      paused = exchange;
      exchange.start(recorder);
      exchange.switchProtocols(ACCEPT, undefined);
      switched.resolve(exchange);
    });
    const visitor = visit(t, listener, UPGRADE);
    const exchange = await switched.promise;
    await visitor.until('\r\n\r\n');
    visitor.socket.pause();
    while (exchange.write(Buffer.alloc(32 * 1024 * 1024)));
    assert.equal(recorder.drains, 0);
    visitor.socket.resume();
    while (recorder.drains === 0) await once(visitor.socket, 'data');

    const size = 24 * 1024 * 1024;
    visitor.socket.write(Buffer.alloc(size));
    while (recorder.body.length === 0) await new Promise((resolve) => setImmediate(resolve));
    const held = recorder.body.length;
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(recorder.body.length, held);
    paused = undefined;
    exchange.resume();
    while (recorder.body.length < size) await new Promise((resolve) => setImmediate(resolve));
  });

  for (const [name, fields] of [
    ['to h2c', 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'],
    ['to TLS', 'Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n'],
    ['with a body', 'Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n'],
    ['without Connection: Upgrade', 'Upgrade: websocket\r\n'],
  ] as const) {
    test(`${name} is an ordinary request`, async (t) => {
      const listener = await startListener(t, (exchange) => {
        const hop = ['upgrade', 'connection', 'http2-settings'].flatMap((each) => field(exchange.headers, each));
        answer(exchange, `${exchange.isUpgrade} ${hop.length}.`);
      });
      await visit(t, listener, `${get('/', fields)}hi`).until('false 0.');
    });
  }

  test('in HTTP/1.0, or behind a request still unanswered, is an ordinary request', async (t) => {
    const listener = await startListener(t, (exchange) =>
      setTimeout(() => answer(exchange, `${exchange.isUpgrade}.`), 10),
    );
    await visit(t, listener, 'GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n').until('false.');
    await visit(t, listener, get() + UPGRADE).until(/false\.[\s\S]*false\./);
  });
});
