import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';
import { WebSocketServer } from 'ws';
import { createForwarder, type Forwarder } from './forwarder.ts';
import { rawService, send } from './test-support.ts';

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanup of cleanups) cleanup();
});

function forward(url: string): Forwarder {
  const forwarder = createForwarder({ mappings: { web: url }, requestTimeoutMs: 1000 });
  cleanups.push(() => forwarder.close());
  return forwarder;
}

async function raw(answer: Parameters<typeof rawService>[0]) {
  const made = await rawService(answer);
  cleanups.push(() => made.close());
  return made;
}

const UPGRADE = ['Host', 'h', 'Upgrade', 'echo'];
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n';

describe('upgrades', () => {
  test('a WebSocket that speaks first, is answered and closes', async () => {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    cleanups.push(() => server.close());
    server.on('connection', (socket) => {
      socket.send('first');
      socket.on('message', (data) => socket.send(`echo ${String(data)}`));
    });
    await once(server, 'listening');
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    const headers = [
      'Host',
      'h',
      'Upgrade',
      'websocket',
      'Sec-WebSocket-Version',
      '13',
      'Sec-WebSocket-Key',
      'dGhlIHNhbXBsZSBub25jZQ==',
    ];
    const stream = send(forward(`http://127.0.0.1:${address.port}`), { headers, end: false });
    await stream.until(() => stream.text.includes('first'));
    assert.equal(stream.head.status, 101);
    assert.ok(stream.head.headers.includes('s3pPLMBiTxaQ9kYGzzhZRbK+xOo='));
    // A masked text frame with a mask of zeros, then a masked close.
    stream.data('\x81\x82\0\0\0\0hi');
    await stream.until(() => stream.text.includes('echo hi'));
    stream.data('\x88\x80\0\0\0\0');
    await stream.until(() => stream.sentEnd);
    stream.data('', true);
    assert.equal((await stream.over()).closed, 'ok');
    assert.equal(stream.credit, 14);
  });

  test('bytes in the same packet as the 101, and bytes that were sent before it, arrive', async () => {
    const { url, received } = await raw((socket, text) => {
      if (text.startsWith('GET')) socket.write(`${SWITCH}hello`);
      else socket.write(text.toUpperCase());
    });
    const stream = send(forward(url), { headers: UPGRADE, body: 'ear', end: false });
    stream.data('ly');
    await stream.until(() => stream.text === 'helloEARLY');
    assert.deepEqual(stream.head.headers, ['Upgrade', 'echo']);
    assert.ok(received[0]?.startsWith('GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n'));
    stream.abort();
  });

  test('the visitor may end first: the service still answers', async () => {
    const { url, sockets } = await raw((socket, text) => {
      if (!text.startsWith('GET')) return;
      socket.write(SWITCH);
      socket.on('end', () => socket.end('last words'));
    });
    const forwarder = forward(url);
    const stream = send(forwarder, { headers: UPGRADE, end: false });
    await stream.until(() => stream.heads.length > 0);
    stream.data('bye', true);
    await stream.over();
    assert.deepEqual([stream.closed, stream.text], ['ok', 'last words']);
    assert.equal(forwarder.active, 0);
    assert.equal(sockets[0]?.readableEnded, true);
  });

  test('the service may end first: the visitor still sends', async () => {
    const { url, received, sockets } = await raw((socket, text) => {
      if (text.startsWith('GET')) socket.end(`${SWITCH}bye`);
    });
    const stream = send(forward(url), { headers: UPGRADE, end: false });
    await stream.until(() => stream.sentEnd);
    const socket = sockets[0] ?? assert.fail();
    const ended = once(socket, 'end');
    stream.data('still here', true);
    await ended;
    assert.ok(received[0]?.endsWith('still here'));
    assert.deepEqual([stream.closed, stream.text], ['ok', 'bye']);
  });

  test('backpressure holds both ways', async () => {
    const size = 16 * 1024 * 1024;
    const { url, sockets } = await raw((socket, text) => {
      if (!text.startsWith('GET')) return;
      socket.pause();
      socket.write(SWITCH);
      socket.write(Buffer.alloc(size));
    });
    const stream = send(forward(url), { headers: UPGRADE, end: false, window: 300_000 });
    await stream.until(() => stream.window <= 0);
    stream.data(Buffer.alloc(size));
    for (let i = 0; i < 500; i++) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(stream.bodyBytes < size / 4);
    assert.equal(stream.credit, 0);
    sockets[0]?.resume();
    stream.open();
    await stream.until(() => stream.credit === size && stream.bodyBytes === size);
    stream.abort();
  });

  test('a refused upgrade is an ordinary answer, the visitor gets all of it and the connection is used again', async () => {
    const { url, received } = await raw((socket) => {
      socket.write(
        'HTTP/1.1 426 Upgrade Required\r\nUpgrade: other\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno',
      );
    });
    const forwarder = forward(url);
    const stream = await send(forwarder, { headers: UPGRADE, end: false }).over();
    assert.deepEqual([stream.closed, stream.finished, stream.text], ['ok', true, 'no']);
    assert.deepEqual(stream.head.headers, ['Upgrade', 'other', 'Content-Length', '2']);
    await send(forwarder, { headers: UPGRADE, end: false }).over();
    assert.equal(received.length, 1);
  });

  test('a 101 that nobody asked for is no answer', async () => {
    const { url } = await raw((socket) => socket.write(SWITCH));
    assert.equal((await send(forward(url)).over()).closed, 'bad_response');
  });

  test('a connection that breaks resets the stream', async () => {
    const { url } = await raw((socket, text) => {
      if (text.startsWith('GET')) socket.write(SWITCH);
      else socket.resetAndDestroy();
    });
    const stream = send(forward(url), { headers: UPGRADE, end: false });
    await stream.until(() => stream.heads.length > 0);
    stream.data('x');
    assert.equal((await stream.over()).closed, 'connection_closed');
  });
});
