import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createForwarder, type Forwarder, type ForwarderOptions } from './forwarder.ts';
import { listen, rawService, send } from './test-support.ts';

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanup of cleanups) cleanup();
});

function forward(url: string, options: Partial<ForwarderOptions> = {}): Forwarder {
  const forwarder = createForwarder({ mappings: { web: url }, ...options });
  cleanups.push(() => forwarder.close());
  return forwarder;
}

async function raw(answer: Parameters<typeof rawService>[0]) {
  const made = await rawService(answer);
  cleanups.push(() => made.close());
  return made;
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

describe('connections to the service', () => {
  test('are used again, the last used first', async () => {
    const { url, received } = await raw((socket) => socket.write(OK));
    const forwarder = forward(url);
    await Promise.all([send(forwarder).over(), send(forwarder).over(), send(forwarder).over()]);
    assert.equal(received.length, 3);
    for (let i = 0; i < 5; i++) await send(forwarder).over();
    assert.equal(received.length, 3);
    const counts = received.map((text) => text.split('GET ').length - 1).sort();
    assert.deepEqual(counts, [1, 1, 6]);
  });

  test('are not used again after Connection: close, after stray bytes, or past the idle limit', async () => {
    for (const answer of [
      'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
      `${OK}stray`,
      'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=0\r\nContent-Length: 2\r\n\r\nok',
    ]) {
      const { url, received } = await raw((socket) => socket.write(answer));
      const forwarder = forward(url);
      assert.equal((await send(forwarder).over()).text, 'ok');
      assert.equal((await send(forwarder).over()).text, 'ok');
      assert.equal(received.length, 2, answer);
    }
    const { url, received } = await raw((socket) => socket.write(OK));
    const forwarder = forward(url, { idleTimeoutMs: 20 });
    await send(forwarder).over();
    await sleep(30);
    await send(forwarder).over();
    assert.equal(received.length, 2);
  });

  test('bytes that come while nobody asked are never taken for an answer', async () => {
    const { url, sockets } = await raw((socket) => socket.write(OK));
    const forwarder = forward(url);
    await send(forwarder).over();
    const first = sockets[0] ?? assert.fail();
    const closed = once(first, 'close');
    first.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    first.on('end', () => first.end());
    await closed;
    assert.equal((await send(forwarder).over()).text, 'ok');
  });

  test('an idempotent request is sent once more when a reused connection dies without an answer', async () => {
    const { url, received } = await raw((socket, _text, number) => {
      if (number === 0 && (received[0]?.split('\r\n\r\n').length ?? 0) > 2) socket.resetAndDestroy();
      else socket.write(OK);
    });
    const forwarder = forward(url);
    await send(forwarder).over();
    const stream = await send(forwarder, { method: 'PUT', body: 'again' }).over();
    assert.deepEqual([stream.closed, stream.text, stream.credit], ['ok', 'ok', 5]);
    assert.equal(received.length, 2);
    assert.ok(received[1]?.endsWith('\r\n\r\nagain'));
  });

  test('never when it is not idempotent, when bytes of an answer were seen, or a second time', async () => {
    for (const [method, last, connections] of [
      ['POST', '', 1],
      ['GET', 'HTTP/1.1 2', 1],
      ['GET', '', 2],
    ] as const) {
      const { url, received } = await raw((socket, _text, number) => {
        if (number === 0 && received[0]?.split('\r\n\r\n').length === 2) socket.write(OK);
        else socket.end(last);
      });
      const forwarder = forward(url);
      await send(forwarder).over();
      assert.equal((await send(forwarder, { method }).over()).closed, 'connection_closed');
      assert.equal(received.length, connections, `${method} ${last}`);
    }
  });

  test('never when more of the body was sent than is kept', async () => {
    const { url, received } = await raw((socket, text) => {
      if (text.startsWith('GET')) socket.write(OK);
      else if (text.includes('second')) socket.resetAndDestroy();
    });
    const forwarder = forward(url);
    await send(forwarder).over();
    const stream = send(forwarder, { method: 'PUT', body: 'first', end: false });
    stream.data('second', true);
    assert.equal((await stream.over()).closed, 'connection_closed');
    assert.equal(received.length, 1);
  });

  test('a request that may not be sent twice takes only a connection that was just used', async () => {
    const { url, received } = await raw((socket) => socket.write(OK));
    const forwarder = forward(url);
    await send(forwarder).over();
    await send(forwarder, { method: 'POST' }).over();
    assert.equal(received.length, 1);
    await sleep(520);
    await send(forwarder, { method: 'POST' }).over();
    assert.equal(received.length, 2);
  });

  test('are bounded: the next requests wait their turn, and past the queue they are refused', async () => {
    let open: (() => void) | undefined;
    const { url, received } = await raw((socket) => {
      if (open === undefined) open = () => socket.write(OK);
      else socket.write(OK);
    });
    const forwarder = forward(url, { maxConnections: 1, maxWaiting: 2 });
    const first = send(forwarder);
    const waiting = [send(forwarder), send(forwarder, { method: 'POST', body: 'x' })];
    assert.equal((await send(forwarder).over()).closed, 'overloaded');
    while (open === undefined) await sleep(1);
    open();
    for (const stream of [first, ...waiting]) assert.equal((await stream.over()).text, 'ok');
    assert.equal(received.length, 1);
  });

  test('a visitor who goes away while waiting leaves the queue', async () => {
    const { url, received } = await raw((socket, text) => {
      if (text.includes('/ok')) socket.write(OK);
    });
    const forwarder = forward(url, { maxConnections: 1, maxWaiting: 1 });
    const first = send(forwarder, { target: '/hang' });
    send(forwarder, { target: '/gone' }).abort();
    const next = send(forwarder, { target: '/ok' });
    first.abort();
    assert.equal((await next.over()).text, 'ok');
    assert.equal(received.join('').includes('/gone'), false);
  });

  test('idle ones make room when the bound is reached', async () => {
    const { url } = await raw((socket) => socket.write(OK));
    const forwarder = forward(url, { maxConnections: 1 });
    await send(forwarder).over();
    await sleep(520);
    assert.equal((await send(forwarder, { method: 'POST' }).over()).text, 'ok');
  });

  test('a service that does not take the connection in time is unreachable', async () => {
    // TLS towards a service that never answers the handshake: connected, but of no use.
    const { url } = await raw(() => {});
    const forwarder = forward(url.replace('http:', 'https:'), { connectTimeoutMs: 50 });
    const stream = await send(forwarder).over();
    assert.equal(stream.closed, 'service_unreachable');
    assert.match(stream.message, /50 ms/);
  });

  for (const address of ['127.0.0.1', '::1']) {
    test(`localhost finds a service that listens on ${address} only`, async () => {
      const server = createServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => socket.end(OK));
      });
      server.listen(0, address);
      await once(server, 'listening');
      cleanups.push(() => server.close());
      const info = server.address();
      assert.ok(info !== null && typeof info === 'object');
      assert.equal((await send(forward(`http://localhost:${info.port}`)).over()).text, 'ok');
    });
  }

  test('a service that comes back is found again', async () => {
    const gone = createServer();
    const port = await listen(gone);
    gone.close();
    await once(gone, 'close');
    const forwarder = forward(`http://127.0.0.1:${port}`);
    assert.equal((await send(forwarder).over()).closed, 'service_unreachable');
    const back = createServer((socket) => void socket.once('data', () => socket.end(OK)));
    back.listen(port, '127.0.0.1');
    await once(back, 'listening');
    cleanups.push(() => back.close());
    assert.equal((await send(forwarder).over()).text, 'ok');
  });
});
