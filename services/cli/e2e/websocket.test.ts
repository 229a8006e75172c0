import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Server as HttpServer } from 'node:http';
import { connect, type Server, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService, startTcpService } from '../../../shared/testkit/local-service.ts';
import { RawVisitor } from '../../core/edge/edge-testing.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

const MEGABYTE = 1024 * 1024;

describe('WebSocket', () => {
  let http: LocalService<HttpServer>;
  let raw: LocalService<Server>;
  let sockets: WebSocketServer;
  let tunnel: Tunnel;
  /** What the raw service does with a connection once the request is there. */
  let onRequest: (socket: Socket, request: string) => void;

  before(async () => {
    http = await startHttpService((_request, response) => response.writeHead(426).end('only WebSocket here'));
    sockets = new WebSocketServer({ server: http.server, perMessageDeflate: true, maxPayload: 4 * MEGABYTE });
    sockets.on('connection', (socket, { url }) => {
      if (url === '/echo') socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    });
    raw = await startTcpService((socket) => {
      socket.once('data', (chunk) => onRequest(socket, chunk.toString('latin1')));
      // A visitor who vanishes looks like one who closed his half; most services then close theirs.
      socket.on('end', () => setImmediate(() => socket.end()));
    });
    tunnel = await startTunnel({ services: { app: http.url, raw: raw.url } });
  });
  after(async () => {
    await tunnel.close();
    await http.close();
    await raw.close();
  });

  /** A visitor's socket and the service's end of it. */
  async function open(path: string, options: { compress?: boolean } = {}): Promise<[WebSocket, WebSocket]> {
    const connected = once(sockets, 'connection') as Promise<[WebSocket]>;
    const visitor = new WebSocket(`ws://127.0.0.1:${tunnel.publicPort}${path}`, ['chat'], {
      perMessageDeflate: options.compress ?? false,
      headers: { host: 'app.localhost' },
    });
    await once(visitor, 'open');
    const [service] = await connected;
    return [visitor, service];
  }

  async function echo(visitor: WebSocket, message: string | Buffer): Promise<{ data: RawData; isBinary: boolean }> {
    const answered = once(visitor, 'message') as Promise<[RawData, boolean]>;
    visitor.send(message);
    const [data, isBinary] = await answered;
    return { data, isBinary };
  }

  test('texts and bytes come back as what they were, with the subprotocol agreed', async () => {
    const [visitor] = await open('/echo');
    assert.equal(visitor.protocol, 'chat');
    const text = await echo(visitor, 'grüße');
    assert.deepEqual([text.data.toString(), text.isBinary], ['grüße', false]);
    const bytes = await echo(visitor, Buffer.from([0, 255, 10, 13]));
    assert.deepEqual([bytes.data, bytes.isBinary], [Buffer.from([0, 255, 10, 13]), true]);
    visitor.terminate();
  });

  test('messages of a megabyte come back unchanged, ten of them at once', async () => {
    const [visitor] = await open('/echo');
    const messages = Array.from({ length: 10 }, () => randomBytes(MEGABYTE));
    const received: RawData[] = [];
    visitor.on('message', (data) => received.push(data));
    for (const message of messages) visitor.send(message);
    await until('all are back', () => received.length === messages.length, 10_000);
    assert.ok(messages.every((message, i) => Buffer.isBuffer(received[i]) && received[i].equals(message)));
    visitor.terminate();
  });

  test('a compressed megabyte comes back unchanged', async () => {
    const [visitor] = await open('/echo', { compress: true });
    assert.match(visitor.extensions, /permessage-deflate/);
    const text = 'compress me '.repeat(MEGABYTE / 12);
    assert.equal((await echo(visitor, text)).data.toString(), text);
    visitor.terminate();
  });

  test('the fragments of a message arrive as they are sent, each before the next', async () => {
    // Whole messages hide fragments, so this is about the bytes.
    const frames = [Buffer.from([0x01, 0x82, 0, 0, 0, 0, 0x68, 0x65]), Buffer.from([0x80, 0x81, 0, 0, 0, 0, 0x79])];
    const seen: Buffer[] = [];
    onRequest = (socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      socket.on('data', (chunk: Buffer) => seen.push(chunk));
    };
    const visitor = upgrade(tunnel);
    await visitor.until('\r\n\r\n');
    for (const [i, frame] of frames.entries()) {
      visitor.socket.write(frame);
      await until(`fragment ${i} arrives`, () => seen.length === i + 1);
    }
    assert.deepEqual(seen, frames);
    visitor.socket.destroy();
  });

  test('a message in fragments is one message to the service and back', async () => {
    const [visitor] = await open('/echo');
    const answered = once(visitor, 'message') as Promise<[RawData]>;
    visitor.send('in ', { fin: false });
    visitor.send('three ', { fin: false });
    visitor.send('parts', { fin: true });
    assert.equal((await answered)[0].toString(), 'in three parts');
    visitor.terminate();
  });

  test('pings are answered by the other end, both ways', async () => {
    const [visitor, service] = await open('/quiet');
    for (const end of [visitor, service]) {
      const ponged = once(end, 'pong') as Promise<[Buffer]>;
      end.ping('are you there');
      assert.equal((await ponged)[0].toString(), 'are you there');
    }
    visitor.terminate();
  });

  test('the close code and reason of the visitor reach the service', async () => {
    const [visitor, service] = await open('/quiet');
    const closed = once(service, 'close') as Promise<[number, Buffer]>;
    visitor.close(4001, 'enough');
    const [code, reason] = await closed;
    assert.deepEqual([code, reason.toString()], [4001, 'enough']);
  });

  test('the close code and reason of the service reach the visitor', async () => {
    const [visitor, service] = await open('/quiet');
    const closed = once(visitor, 'close') as Promise<[number, Buffer]>;
    service.close(4002, 'restarting');
    const [code, reason] = await closed;
    assert.deepEqual([code, reason.toString()], [4002, 'restarting']);
  });

  test('an end that breaks off is an abnormal close at the other, and nothing stays open', async () => {
    for (const [breaks, hears] of [
      [0, 1],
      [1, 0],
    ] as const) {
      const ends = await open('/quiet');
      const closed = once(ends[hears], 'close') as Promise<[number]>;
      ends[hears].on('error', () => {});
      ends[breaks].terminate();
      assert.deepEqual((await closed)[0], 1006);
      await until('the agent lets go', () => tunnel.agent.active === 0);
    }
  });

  test('a service that does not upgrade is heard', async () => {
    const page = await visit(`${tunnel.url('app')}/`, {
      headers: { connection: 'upgrade', upgrade: 'other' },
    });
    assert.deepEqual([page.status, page.text], [400, 'Invalid Upgrade header']);
  });

  test('a service that speaks first, in the same packet as its 101, is heard to the byte', async () => {
    onRequest = (socket, request) => {
      assert.match(request, /^GET \/first HTTP\/1\.1\r\n/);
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nI speak first',
      );
      socket.on('data', (chunk) => socket.write(chunk.toString().toUpperCase()));
    };
    const visitor = upgrade(tunnel, '/first');
    const answer = await visitor.until('I speak first');
    assert.match(answer, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
    visitor.send('and I second');
    assert.ok((await visitor.until('AND I SECOND')).endsWith('\r\n\r\nI speak firstAND I SECOND'));
    visitor.socket.destroy();
  });

  test('a visitor who speaks in the same packet as his request is heard to the byte', async () => {
    onRequest = (socket, request) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      const early = request.split('\r\n\r\n')[1] ?? '';
      socket.write(early);
      socket.on('data', (chunk) => socket.write(chunk));
    };
    const visitor = upgrade(tunnel, '/', 'impatient');
    assert.ok((await visitor.until('impatient')).endsWith('\r\n\r\nimpatient'));
    visitor.socket.destroy();
  });

  test('a visitor who closes his half still hears the rest', async () => {
    const MUCH = randomBytes(MEGABYTE).toString('hex');
    onRequest = (socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      let received = '';
      socket.on('data', (chunk) => {
        received += chunk.toString();
      });
      socket.on('end', () => socket.end(`${received} heard;${MUCH}`));
    };
    const visitor = upgrade(tunnel);
    await visitor.until('\r\n\r\n');
    visitor.socket.end('my last words');
    assert.ok((await visitor.untilEnd()).endsWith(`\r\n\r\nmy last words heard;${MUCH}`));
    assert.equal(visitor.error, undefined);
  });

  test('a service that closes its half still hears the rest', async () => {
    const heard = Promise.withResolvers<string>();
    onRequest = (socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nmy last words');
      let received = '';
      socket.on('data', (chunk) => {
        received += chunk.toString();
      });
      socket.on('end', () => heard.resolve(received));
    };
    const visitor = upgrade(tunnel);
    assert.ok((await visitor.untilEnd()).endsWith('\r\n\r\nmy last words'));
    visitor.send('still ');
    visitor.socket.end('talking');
    assert.equal(await heard.promise, 'still talking');
    await visitor.closed;
    assert.equal(visitor.error, undefined);
  });
});

/** A visitor who asks for an upgrade with raw bytes, and may close his half alone. */
function upgrade(tunnel: Tunnel, path = '/', early = ''): RawVisitor {
  const visitor = new RawVisitor(connect({ port: tunnel.publicPort, host: '127.0.0.1', allowHalfOpen: true }));
  visitor.send(
    `GET ${path} HTTP/1.1\r\nHost: raw.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n${early}`,
  );
  return visitor;
}
