import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { scrape } from '../../../shared/testkit/metrics.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

/** The service must hear of a visitor's end within this, milliseconds. */
const HEARD_WITHIN = 1000;
const PIECE = Buffer.alloc(64 * 1024, 'x');

describe('what a visitor gives up', () => {
  let service: LocalService<unknown>;
  let tunnel: Tunnel;
  let requests: {
    request: IncomingMessage;
    response: ServerResponse;
    bytes: number;
    ended: boolean;
    closed: boolean;
  }[];

  before(async () => {
    service = await startHttpService((request, response) => {
      const seen = { request, response, bytes: 0, ended: false, closed: false };
      requests.push(seen);
      request.on('data', (chunk: Buffer) => {
        seen.bytes += chunk.length;
      });
      request.on('end', () => {
        seen.ended = true;
      });
      request.on('error', () => {});
      response.on('close', () => {
        seen.closed = true;
      });
      if (request.url === '/endless') pour(response);
      if (request.url === '/begun') response.write(PIECE);
    });
    tunnel = await startTunnel({ services: { app: service.url } });
  });
  after(async () => {
    await tunnel.close();
    await service.close();
  });

  /** A connection that sends `text`, resolved when the service has `count` requests. */
  async function send(text: string, count = 1): Promise<Socket> {
    requests = [];
    const sockets = Array.from({ length: count }, () => {
      const socket = connect(tunnel.publicPort, '127.0.0.1');
      socket.on('error', () => {});
      socket.write(text);
      return socket;
    });
    await until('the requests reach the service', () => requests.length === count);
    const [first] = sockets;
    assert.ok(first);
    first.on('close', () => {
      for (const socket of sockets) socket.destroy();
    });
    return first;
  }

  async function assertReleased(): Promise<void> {
    const took = await until('the service hears of it', () => requests.every(({ closed }) => closed));
    assert.ok(took < HEARD_WITHIN, `the service heard of it after ${took} ms`);
    await until('both ends have let go', async () => {
      const metrics = await scrape(tunnel.core.addresses.metricsPort);
      const held = [metrics.get('tunnel_streams_active'), metrics.get('tunnel_buffered_bytes'), tunnel.agent.active];
      return held.every((count) => count === 0) && service.sockets.size === 0;
    });
  }

  test('a download leaves nothing behind at either end', async () => {
    const visitor = await send(request('GET', '/endless'));
    let bytes = 0;
    visitor.on('data', (chunk) => {
      bytes += chunk.length;
      if (bytes > 1_000_000) visitor.destroy();
    });
    await once(visitor, 'close');
    await assertReleased();
  });

  test('a download that nobody reads leaves nothing behind at either end', async () => {
    const visitor = await send(request('GET', '/endless'));
    visitor.pause();
    let before = -1;
    await until('the service is held back', async () => {
      await wait(100);
      const written = requests[0]?.response.socket?.bytesWritten ?? 0;
      const stands = written === before;
      before = written;
      return stands;
    });
    visitor.destroy();
    await assertReleased();
  });

  test('an upload leaves nothing behind at either end, and the service never takes it for complete', async () => {
    const visitor = await send(request('POST', '/', 'Content-Length: 100000000\r\n'));
    for (let i = 0; i < 20; i += 1) visitor.write(PIECE);
    await until('the service reads', () => requests.every(({ bytes }) => bytes > 1_000_000));
    visitor.destroy();
    await assertReleased();
    assert.deepEqual(
      requests.map(({ ended, request: { complete } }) => [ended, complete]),
      [[false, false]],
    );
  });

  test('a chunked upload leaves nothing behind, and the service never takes it for complete', async () => {
    const visitor = await send(request('POST', '/', 'Transfer-Encoding: chunked\r\n'));
    visitor.write('5\r\nhello\r\n');
    await until('the service reads', () => requests.every(({ bytes }) => bytes === 5));
    visitor.destroy();
    await assertReleased();
    assert.deepEqual(
      requests.map(({ ended, request: { complete } }) => [ended, complete]),
      [[false, false]],
    );
  });

  test('a request that the service has not answered yet leaves nothing behind', async () => {
    const visitor = await send(request('GET', '/never'));
    visitor.destroy();
    await assertReleased();
  });

  test('three hundred begun downloads at once leave nothing behind', async () => {
    const visitor = await send(request('GET', '/begun'), 300);
    visitor.destroy();
    await assertReleased();
  });

  test('one stream of an HTTP/2 visitor leaves nothing behind, and the others go on', async () => {
    requests = [];
    const session = connectHttp2(`http://127.0.0.1:${tunnel.publicPort}`);
    const open = () => session.request({ ':path': '/endless', ':authority': 'app.localhost' });
    const [given, kept] = [open(), open()];
    await Promise.all([once(given, 'data'), once(kept, 'data')]);
    given.on('error', () => {});
    given.close(constants.NGHTTP2_CANCEL);
    await until('the service hears of it', () => requests.filter(({ closed }) => closed).length === 1, HEARD_WITHIN);
    let bytes = 0;
    kept.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await until('the other stream goes on', () => bytes > 2_000_000);
    session.destroy();
    await assertReleased();
  });
});

function request(method: string, path: string, fields = ''): string {
  return `${method} ${path} HTTP/1.1\r\nHost: app.localhost\r\n${fields}\r\n`;
}

/** Writes for as long as somebody takes it. */
function pour(response: ServerResponse): void {
  const more = (): void => {
    while (!response.destroyed && response.write(PIECE));
  };
  response.on('drain', more);
  more();
}
