import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2';
import { after, before, describe, test } from 'node:test';
import { type RawData, WebSocket } from 'ws';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { scrape } from '../../../shared/testkit/metrics.ts';
import { median } from '../../../shared/testkit/statistics.ts';
import { pauseOf } from './cluster-kit.ts';
import { type Door, EVENTS, ParityRig } from './parity-kit.ts';

/** What the way over another node may add to the median, milliseconds. Held back, events would come with the next one, 20. */
const HOP = 8;
/** A machine that stalls once is no fault of the relay; a relay that holds events back does it in each round. */
const ROUNDS = 4;
/** The other end must hear of an abort within this, milliseconds. */
const HEARD_WITHIN = 2000;

describe('streams through a node that does not hold the agent', { timeout: pauseOf(90_000, 300_000) }, () => {
  let rig: ParityRig;

  before(async () => {
    rig = await ParityRig.start();
  });
  after(() => rig?.close());

  async function open(door: Door): Promise<[WebSocket, WebSocket]> {
    const connected = once(rig.services.sockets, 'connection') as Promise<[WebSocket]>;
    const visitor = new WebSocket(`ws://127.0.0.1:${door.node.publicPort}/`, ['chat'], {
      headers: { host: 'app.localhost' },
    });
    await once(visitor, 'open');
    return [visitor, (await connected)[0]];
  }

  async function echo(visitor: WebSocket, message: string | Buffer): Promise<RawData> {
    const answered = once(visitor, 'message') as Promise<[RawData]>;
    visitor.send(message);
    return (await answered)[0];
  }

  /** Passes when the relayed way is little longer than the direct one in one of the rounds. @param way milliseconds */
  async function assertTiming(way: (door: Door) => Promise<readonly number[]>): Promise<void> {
    const failures: string[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const direct = median(await way(rig.owner));
      const relayed = median(await way(rig.other));
      if (relayed < direct + HOP) return;
      failures.push(`${relayed.toFixed(1)} ms instead of ${direct.toFixed(1)} ms`);
    }
    assert.fail(failures.join(', '));
  }

  test('server-sent events come one by one, in time', async () => {
    await assertTiming(async (door) => {
      const taken: number[] = [];
      await visit(door.url('app', '/events'), {
        onData: (chunk) => {
          for (const [, sent] of chunk.toString().matchAll(/^data: ([\d.]+)$/gm))
            taken.push(performance.now() - Number(sent));
        },
      });
      assert.equal(taken.length, EVENTS);
      return taken;
    });
  });

  test('WebSocket messages come back as they were, in time, and the end with its code', async () => {
    const seen = await rig.compare(async (door) => {
      const [visitor, service] = await open(door);
      const texts = [await echo(visitor, 'grüße'), await echo(visitor, Buffer.from([0, 255, 10]))].map(String);
      const megabyte = randomBytes(1024 ** 2);
      const back = await echo(visitor, megabyte);
      assert.ok(Buffer.isBuffer(back) && back.equals(megabyte));
      const closed = once(service, 'close') as Promise<[number, Buffer]>;
      visitor.close(4001, 'enough');
      const [code, reason] = await closed;
      return [visitor.protocol, texts, code, reason.toString()];
    });
    assert.deepEqual(seen, ['chat', ['grüße', Buffer.from([0, 255, 10]).toString()], 4001, 'enough']);
    await assertTiming(async (door) => {
      const [visitor] = await open(door);
      const taken: number[] = [];
      for (let i = 0; i < 50; i += 1) {
        const sent = performance.now();
        await echo(visitor, `message ${i}`);
        taken.push((performance.now() - sent) / 2);
      }
      visitor.terminate();
      return taken;
    });
  });

  test('a WebSocket that breaks off at one end is an abnormal close at the other', async () => {
    const codes = await rig.compare(async (door) => {
      const heard: number[] = [];
      for (const breaks of [0, 1] as const) {
        const ends = await open(door);
        const hears = ends[1 - breaks];
        hears?.on('error', () => {});
        const closed = once(hears ?? ends[0], 'close') as Promise<[number]>;
        ends[breaks].terminate();
        heard.push((await closed)[0]);
      }
      return heard;
    });
    assert.deepEqual(codes, [1006, 1006]);
  });

  test('an upgrade carries raw bytes, from the first on, and each half has an end of its own', async () => {
    const text = await rig.compare(async (door) => {
      const visitor = door.raw();
      visitor.send(
        'GET /upgrade HTTP/1.1\r\nHost: raw.localhost\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\nearly;',
      );
      await visitor.until('early;');
      visitor.socket.end('last\0\xff;', 'latin1');
      return visitor.untilEnd();
    });
    assert.match(text, /^HTTP\/1\.1 101 [\s\S]*\r\n\r\nI speak first;early;last\0\xff;that was all$/);
  });

  test('gRPC calls, streams and refusals come with their messages and status', async (t) => {
    const seen = await rig.compare(async (door) => {
      const session = connectHttp2(`http://127.0.0.1:${door.node.publicPort}`);
      t.after(() => session.destroy());
      const unary = await answerOf(call(session, 'Hello', ['Ada']));
      const refused = await answerOf(call(session, 'Nothing', ['x']));
      const chat = call(session, 'Chat');
      const answer = answerOf(chat);
      const heard: string[] = [];
      for (const word of ['one', 'two', 'three']) {
        const piece = once(chat, 'data') as Promise<[Buffer]>;
        chat.write(grpcMessage(word));
        heard.push((await piece)[0].toString('utf8', 5));
      }
      chat.end();
      const many = await Promise.all(
        Array.from({ length: 50 }, (_, i) => answerOf(call(session, 'Hello', [`number ${i}`]))),
      );
      session.close();
      return { unary, refused, heard, chat: (await answer).trailers, many };
    });
    assert.deepEqual(seen.unary, { status: 200, body: grpcMessage('Ada').toString('latin1'), trailers: ['0', 'm'] });
    assert.deepEqual([seen.refused.body, seen.refused.trailers], ['', ['12', 'm']]);
    assert.deepEqual(
      [seen.heard, seen.chat],
      [
        ['one', 'two', 'three'],
        ['0', 'm'],
      ],
    );
    assert.deepEqual(
      seen.many.map(({ body }) => body.slice(5)),
      seen.many.map((_, i) => `number ${i}`),
    );
  });

  test('a visitor who goes away is noticed by the service, whatever he was at', async () => {
    const ways: readonly (readonly [string, string])[] = [
      ['GET', '/endless'],
      ['GET', '/never'],
      ['POST', '/never/upload'],
    ];
    const seen = await rig.compare(async (door) => {
      const complete: unknown[] = [];
      for (const [method, start] of ways) {
        const path = `${start}?${door.node.name}`;
        const before = rig.services.served.length;
        const visitor = door.raw();
        const length = method === 'POST' ? 'Content-Length: 1000000\r\n' : '';
        visitor.send(
          `${method} ${path} HTTP/1.1\r\nHost: app.localhost\r\n${length}\r\n${method === 'POST' ? 'begun' : ''}`,
        );
        await until('the service is asked', () => rig.services.served.length > before);
        const served = rig.services.served[before];
        if (start === '/endless') await visitor.until('xxxx');
        if (method === 'POST') await until('the upload begins', () => served?.bytes === 5);
        visitor.socket.destroy();
        await until('the service hears of it', () => served?.closed === true, HEARD_WITHIN);
        complete.push([start, served?.complete]);
      }
      const session = connectHttp2(`http://127.0.0.1:${door.node.publicPort}`);
      session.on('error', () => {});
      const before = rig.services.served.length;
      const stream = session.request({ ':path': '/endless', ':authority': 'app.localhost' });
      stream.on('error', () => {});
      await once(stream, 'data');
      stream.close(constants.NGHTTP2_CANCEL);
      await until('the service hears of it', () => rig.services.served[before]?.closed === true, HEARD_WITHIN);
      session.destroy();
      return complete;
    });
    assert.deepEqual(seen, [
      ['/endless', true],
      ['/never', true],
      ['/never/upload', false],
    ]);
    for (const { node } of [rig.owner, rig.other]) {
      await until(`${node.name} has let go`, async () => {
        const metrics = await scrape(node.metricsPort);
        return ['tunnel_streams_active', 'tunnel_buffered_bytes'].every((name) => metrics.get(name) === 0);
      });
    }
    await until('the agent has let go', () => rig.agent.active === 0);
  });

  test('an answer that the service breaks off is seen to be incomplete', async () => {
    const seen = await rig.compare(async (door) => {
      const page = await visit(door.url('raw', '/cut'));
      return [page.status, page.text, page.complete];
    });
    assert.deepEqual(seen, [200, 'only this', false]);
  });
});

interface GrpcAnswer {
  readonly status: unknown;
  readonly body: string;
  /** `grpc-status` and `grpc-message`. */
  readonly trailers: readonly unknown[];
}

/** A message as gRPC frames it: a flag for compression and the length (grpc.io, "gRPC over HTTP2"). */
function grpcMessage(text: string): Buffer {
  const payload = Buffer.from(text);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(payload.length, 1);
  return Buffer.concat([prefix, payload]);
}

/** @param messages sent at once, before the end; without them the stream stays open */
function call(session: ClientHttp2Session, method: string, messages?: readonly string[]): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': `/greeter.Greeter/${method}`,
    ':authority': 'grpc.localhost',
    ...{ 'content-type': 'application/grpc', te: 'trailers' },
  });
  if (messages !== undefined) stream.end(Buffer.concat(messages.map(grpcMessage)));
  return stream;
}

async function answerOf(stream: ClientHttp2Stream): Promise<GrpcAnswer> {
  let status: unknown;
  let trailers: readonly unknown[] = [];
  const chunks: Buffer[] = [];
  const take = (fields: Record<string, unknown>): void => {
    if (fields['grpc-status'] !== undefined) trailers = [fields['grpc-status'], fields['grpc-message']];
  };
  stream.on('response', (fields) => {
    status = fields[':status'];
    take(fields);
  });
  stream.on('trailers', take);
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(stream, 'close');
  return { status, body: Buffer.concat(chunks).toString('latin1'), trailers };
}
