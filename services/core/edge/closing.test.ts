import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { describe, test } from 'node:test';
import { answer, get, Recorder, startListener, visit } from './edge-testing.ts';
import type { VisitorExchange } from './exchange.ts';

describe('closing the listener', () => {
  test('ends idle connections and unopened ones at once, and takes no new ones', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'ok'));
    const idle = visit(t, listener, get());
    await idle.until('ok');
    const silent = visit(t, listener, '');
    await once(silent.socket, 'connect');
    const { port } = listener.address;
    while (listener.visitors < 2) await new Promise((resolve) => setImmediate(resolve));
    const closed = listener.close(5_000);
    await Promise.all([idle.untilEnd(), silent.untilEnd()]);
    idle.socket.end();
    silent.socket.end();
    assert.equal(await closed, true);
    const refused = connectTcp(port, '127.0.0.1');
    const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
    assert.equal(error.code, 'ECONNREFUSED');
  });

  test('lets answers in flight finish, and says with them that the connection ends', async (t) => {
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange));
    const visitor = visit(t, listener, get(), false);
    const exchange = await seen.promise;
    const closed = listener.close(5_000);
    setTimeout(() => answer(exchange, 'finished'), 60);
    const received = await visitor.untilEnd();
    assert.match(received, /Connection: close\r\n[\s\S]*\r\n\r\nfinished$/);
    assert.equal(await closed, true);
  });

  test('lets a request whose head is under way be answered', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'served'));
    const visitor = visit(t, listener, get().slice(0, -2), false);
    while (listener.visitors < 1) await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setTimeout(resolve, 20));
    const closed = listener.close(5_000);
    setTimeout(() => visitor.send('\r\n'), 60);
    assert.match(await visitor.untilEnd(), /Connection: close\r\n[\s\S]*served$/);
    assert.equal(await closed, true);
  });

  test('does not cut a large answer that was ended but is still being sent', async (t) => {
    const size = 64 * 1024 * 1024;
    const started = Promise.withResolvers<void>();
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', [], Buffer.alloc(size), true);
      started.resolve();
    });
    const visitor = visit(t, listener, '', false);
    let bytes = 0;
    visitor.socket.removeAllListeners('data');
    visitor.socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    visitor.socket.pause();
    visitor.send(get());
    await started.promise;
    const closed = listener.close(10_000);
    setTimeout(() => visitor.socket.resume(), 100);
    await visitor.untilEnd();
    assert.ok(bytes > size, `${bytes} bytes arrived`);
    assert.equal(await closed, true);
  });

  test('ends a connection whose answer began before', async (t) => {
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', [], Buffer.from('a'), false);
      seen.resolve(exchange);
    });
    const visitor = visit(t, listener, get(), false);
    const exchange = await seen.promise;
    const closed = listener.close(5_000);
    setTimeout(() => exchange.end(), 60);
    assert.match(await visitor.untilEnd(), /a\r\n0\r\n\r\n$/);
    assert.equal(await closed, true);
  });

  test('sends GOAWAY and lets HTTP/2 streams finish', async (t) => {
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange));
    const session = connectHttp2(`http://127.0.0.1:${listener.address.port}`);
    t.after(() => session.destroy());
    const stream = session.request({ ':authority': 'api.culvert.test', ':path': '/' });
    let body = '';
    stream.on('data', (chunk: Buffer) => {
      body += chunk.toString();
    });
    const exchange = await seen.promise;
    const goaway = once(session, 'goaway');
    const ended = once(stream, 'close');
    const closed = listener.close(5_000);
    await goaway;
    answer(exchange, 'finished');
    await ended;
    assert.equal(body, 'finished');
    assert.equal(await closed, true);
  });

  test('cuts off at the deadline what does not finish', async (t) => {
    const recorders: Recorder[] = [];
    const both = Promise.withResolvers<void>();
    const listener = await startListener(t, (exchange) => {
      const recorder = new Recorder();
      recorders.push(recorder);
      exchange.start(recorder);
      if (exchange.isUpgrade) exchange.switchProtocols([], undefined);
      if (recorders.length === 3) both.resolve();
    });
    visit(t, listener, get());
    visit(t, listener, get('/', 'Connection: Upgrade\r\nUpgrade: x\r\n'));
    const session = connectHttp2(`http://127.0.0.1:${listener.address.port}`);
    session.on('error', () => {});
    session.request({ ':authority': 'api.culvert.test', ':path': '/' }).on('error', () => {});
    await both.promise;
    assert.equal(await listener.close(100), false);
    assert.equal(listener.visitors, 0);
    await Promise.all(recorders.map((recorder) => recorder.aborted));
  });
});
