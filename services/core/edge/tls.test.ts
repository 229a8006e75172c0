import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, connect as connectTcp } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from 'node:tls';
import { answer, certificate, field, get, noVisitors, RawVisitor, Recorder, startListener } from './edge-testing.ts';
import type { PublicListener } from './listener.ts';

const first = await certificate();
const second = await certificate();
const TLS = { cert: first.cert, key: first.key, host: '127.0.0.1', port: 0 };

function secure(
  t: TestContext,
  listener: PublicListener,
  options: ConnectionOptions = {},
): { socket: TLSSocket; visitor: RawVisitor } {
  const { port } = listener.tlsAddress;
  const socket = connectTls({
    port,
    host: '127.0.0.1',
    ca: [first.ca, second.ca],
    ALPNProtocols: ['http/1.1'],
    ...options,
  });
  t.after(() => socket.destroy());
  return { socket, visitor: new RawVisitor(socket) };
}

function say(text: string): string {
  return `<${text}>`;
}

describe('the TLS port', () => {
  test('speaks HTTP/2 or HTTP/1.1 as ALPN chooses, HTTP/1.1 without it', async (t) => {
    const listener = await startListener(
      t,
      (exchange) =>
        answer(
          exchange,
          say(`${exchange.protocol} ${field(exchange.headers, 'x-forwarded-proto')} ${exchange.remoteAddress}`),
        ),
      { tls: TLS },
    );
    for (const alpn of [['http/1.1'], undefined]) {
      const { visitor } = secure(t, listener, { ALPNProtocols: alpn });
      visitor.send(get());
      await visitor.until('<http/1.1 https 127.0.0.1>');
      visitor.send(get());
      await visitor.until(/(<http\/1.1 https 127.0.0.1>[\s\S]*){2}/);
    }
    const session = connectHttp2(`https://127.0.0.1:${listener.tlsAddress.port}`, { ca: first.ca });
    t.after(() => session.destroy());
    const stream = session.request({ ':path': '/', ':authority': 'api.culvert.test' });
    const [chunk] = (await once(stream, 'data')) as [Buffer];
    assert.equal(chunk.toString(), '<h2 https 127.0.0.1>');
  });

  test('switches protocols, each half closing by itself', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.start(recorder);
        exchange.switchProtocols([], Buffer.from('hello'));
        void recorder.ended.then(() => {
          exchange.write(Buffer.from(say(recorder.body)));
          exchange.end();
        });
      },
      { tls: TLS },
    );
    const { visitor, socket } = secure(t, listener);
    visitor.send(get('/', 'Connection: Upgrade\r\nUpgrade: x\r\n'));
    await visitor.until('hello');
    socket.end('bye');
    assert.match(await visitor.untilEnd(), /<bye>$/);
    await recorder.finished;
  });

  test('breaks off a response so that it shows', async (t) => {
    const listener = await startListener(
      t,
      (exchange) => {
        exchange.respond(200, 'OK', [], Buffer.from('part'), false);
        setTimeout(() => exchange.abort(), 30);
      },
      { tls: TLS },
    );
    const { visitor } = secure(t, listener);
    visitor.send('GET / HTTP/1.0\r\n\r\n');
    await visitor.closed;
    assert.match(visitor.received, /part$/);
    await noVisitors(listener);
  });

  test('takes a new certificate for new connections', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'ok'), { tls: TLS });
    const before = secure(t, listener);
    await once(before.socket, 'secureConnect');
    listener.reloadTls(second.cert, second.key);
    const after = secure(t, listener);
    await once(after.socket, 'secureConnect');
    assert.notEqual(
      before.socket.getPeerX509Certificate()?.fingerprint256,
      after.socket.getPeerX509Certificate()?.fingerprint256,
    );
    for (const { visitor } of [before, after]) {
      visitor.send(get());
      await visitor.until('ok');
    }
    assert.equal(after.socket.alpnProtocol, 'http/1.1');
    assert.throws(() => listener.reloadTls('no', 'certificate'), { code: 'invalid_config' });
  });

  test('gives up on what is no TLS, or no handshake in time', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'), { tls: TLS, headersTimeout: 200 });
    for (const text of [get(), '', '\x16\x03']) {
      const visitor = new RawVisitor(connectTcp(listener.tlsAddress.port, '127.0.0.1'));
      visitor.send(text);
      await visitor.untilEnd();
      visitor.socket.destroy();
    }
    await noVisitors(listener);
  });

  test('knows the visitor by the PROXY header in front of the handshake', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, say(exchange.remoteAddress)), {
      tls: TLS,
      proxyProtocol: true,
      trustedProxies: ['127.0.0.1'],
    });
    const raw = connectTcp((listener.tlsAddress satisfies AddressInfo).port, '127.0.0.1');
    raw.write('PROXY TCP6 2001:db8::7 ::1 1 2\r\n');
    const socket = connectTls({ socket: raw, ca: first.ca, host: '127.0.0.1' });
    t.after(() => socket.destroy());
    const visitor = new RawVisitor(socket);
    visitor.send(get());
    await visitor.until('<2001:db8::7>');
  });

  test('ends its connections when the listener closes', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'ok'), { tls: TLS });
    const { visitor } = secure(t, listener);
    visitor.send(get());
    await visitor.until('ok');
    const handshaking = connectTcp(listener.tlsAddress.port, '127.0.0.1');
    handshaking.on('error', () => {});
    while (listener.visitors < 2) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await listener.close(5_000), true);
    await visitor.untilEnd();
    handshaking.destroy();
  });

  test('is refused with a certificate that cannot be used', async (t) => {
    await assert.rejects(
      startListener(t, () => {}, { tls: { ...TLS, key: 'no' } }),
      { code: 'invalid_config' },
    );
  });
});
