import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { describe, test } from 'node:test';
import { answer, field, get, noVisitors, Recorder, startListener, visit } from './edge-testing.ts';

describe('a visitor that makes no progress', () => {
  test('is given up when it does not read', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.start(recorder);
        exchange.respond(200, 'OK', [], undefined, false);
        exchange.write(Buffer.alloc(64 * 1024 * 1024));
      },
      { stallTimeout: 200 },
    );
    visit(t, listener, get()).socket.pause();
    await recorder.aborted;
    await noVisitors(listener);
  });

  test('is given up when it does not read an HTTP/2 stream', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.start(recorder);
        exchange.respond(200, 'OK', [], undefined, false);
        exchange.write(Buffer.alloc(1024 * 1024));
      },
      { stallTimeout: 200 },
    );
    const session = connectHttp2(`http://127.0.0.1:${listener.address.port}`);
    t.after(() => session.destroy());
    const stream = session.request({ ':authority': 'api.culvert.test', ':path': '/' });
    stream.on('error', () => {});
    stream.pause();
    await recorder.aborted;
    assert.equal(session.destroyed, false, 'the other streams of the connection go on');
  });

  test('is given up when it does not read after an upgrade', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.start(recorder);
        exchange.switchProtocols([], undefined);
        exchange.write(Buffer.alloc(64 * 1024 * 1024));
      },
      { stallTimeout: 200 },
    );
    visit(t, listener, get('/', 'Connection: Upgrade\r\nUpgrade: x\r\n')).socket.pause();
    await recorder.aborted;
  });

  test('is answered 400 when its request body stops', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => exchange.start(recorder), { stallTimeout: 200 });
    const visitor = visit(t, listener, `POST / HTTP/1.1\r\nHost: api.culvert.test\r\nContent-Length: 10\r\n\r\nabc`);
    await recorder.aborted;
    assert.match(await visitor.untilEnd(), /^HTTP\/1\.1 400 /);
  });

  test('is left alone while the service is what makes it wait', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.start(recorder);
        if (exchange.target === '/body') exchange.pause();
        if (exchange.target === '/stream') exchange.respond(200, 'OK', [], Buffer.from('event'), false);
        setTimeout(() => (exchange.headSent ? exchange.end() : answer(exchange, 'late')), 700);
      },
      { stallTimeout: 150 },
    );
    const body = 'POST /body HTTP/1.1\r\nHost: api.culvert.test\r\nContent-Length: 10\r\n\r\nabc';
    const expects = 'POST /x HTTP/1.1\r\nHost: api.culvert.test\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n';
    await Promise.all([
      visit(t, listener, get('/wait')).until('late'),
      visit(t, listener, get('/stream')).until('\r\n0\r\n'),
      visit(t, listener, body).until('late'),
      visit(t, listener, expects).until('late'),
    ]);
    assert.equal(recorder.aborts, 0);
  });

  test('is closed after its keep-alive time, in HTTP/1 and HTTP/2', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'ok'), {
      keepAliveTimeout: 100,
      headersTimeout: 1_000,
    });
    await visit(t, listener, get()).untilEnd();
    const session = connectHttp2(`http://127.0.0.1:${listener.address.port}`);
    await once(session, 'close');
    await noVisitors(listener);
  });
});

describe('maxVisitors', () => {
  test('answers 503 above it, and serves again below it', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'ok'), { maxVisitors: 2 });
    const first = visit(t, listener, get());
    const second = visit(t, listener, get());
    await first.until('ok');
    await second.until('ok');
    const refused = await visit(t, listener, get()).untilEnd();
    assert.match(
      refused,
      /^HTTP\/1\.1 503 [\s\S]*Retry-After: \d+\r\n[\s\S]*X-Culvert-Error: overloaded|X-Culvert-Error: overloaded[\s\S]*Retry-After/,
    );
    first.socket.destroy();
    second.socket.destroy();
    while (listener.visitors > 1) await new Promise((resolve) => setImmediate(resolve));
    await visit(t, listener, get()).until('ok');
  });
});

describe('the PROXY protocol', () => {
  const V1 = 'PROXY TCP4 203.0.113.9 198.51.100.1 5000 80\r\n';
  const V2 = `\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c${String.fromCharCode(203, 0, 113, 9, 198, 51, 100, 1, 1, 2, 3, 4)}`;
  const options = { proxyProtocol: true, trustedProxies: ['127.0.0.0/8'] };

  for (const [name, header] of [
    ['v1', V1],
    ['v2', V2],
  ] as const) {
    test(`${name} says who the visitor is, wherever it is split`, async (t) => {
      const listener = await startListener(
        t,
        (exchange) => answer(exchange, `${exchange.remoteAddress} ${field(exchange.headers, 'x-forwarded-for')};`),
        options,
      );
      for (const cut of [0, 1, 5, 13, 16, header.length]) {
        const bytes = header + get('/', 'X-Forwarded-For: 6.6.6.6\r\n');
        const visitor = visit(t, listener, bytes.slice(0, cut));
        await new Promise((resolve) => setTimeout(resolve, 5));
        visitor.send(bytes.slice(cut));
        await visitor.until('203.0.113.9 203.0.113.9;');
      }
    });
  }

  test('may stand in front of HTTP/2', async (t) => {
    const seen = Promise.withResolvers<string>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange.remoteAddress), options);
    const visitor = visit(t, listener, V1);
    const session = connectHttp2('http://127.0.0.1', { createConnection: () => visitor.socket });
    session.on('error', () => {});
    t.after(() => session.destroy());
    session.request({ ':authority': 'api.culvert.test', ':path': '/' }).on('error', () => {});
    assert.equal(await seen.promise, '203.0.113.9');
  });

  test('is required of a trusted proxy', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'), options);
    for (const text of [get(), 'PROXY TCP4 evil\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n']) {
      assert.equal(await visit(t, listener, text).untilEnd(), '');
    }
  });

  test('is no HTTP from strangers, or when it is not switched on', async (t) => {
    for (const each of [{ proxyProtocol: true, trustedProxies: ['10.0.0.0/8'] }, { trustedProxies: ['127.0.0.1'] }]) {
      const listener = await startListener(t, () => assert.fail('handled'), each);
      assert.match(await visit(t, listener, V1 + get()).untilEnd(), /^HTTP\/1\.1 400 /);
    }
  });
});
