import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { fieldValues, visit } from '../../../shared/testkit/http-visitor.ts';
import { scrape } from '../../../shared/testkit/metrics.ts';
import { pauseOf } from './cluster-kit.ts';
import { type Door, ParityRig, RAW_ANSWERS } from './parity-kit.ts';

const MIB = 1024 ** 2;
/** Bytes of one transfer each way. */
const TRANSFER = pauseOf(64, 512) * MIB;
/** What transfers may add to the peak memory of a node, whatever their size: see transfers.test.ts. */
const MEMORY_GROWTH = 96 * MIB;

describe('through a node that does not hold the agent', { timeout: pauseOf(90_000, 300_000) }, () => {
  let rig: ParityRig;

  before(async () => {
    rig = await ParityRig.start({ 'trusted-proxies': '127.0.0.0/8', 'max-body-size': '2GiB' });
  });
  after(() => rig?.close());

  /** All that comes for one request, until the connection ends. */
  async function answerTo(door: Door, tunnel: string, path: string, method = 'GET', fields = ''): Promise<string> {
    const visitor = door.raw();
    visitor.send(`${method} ${path} HTTP/1.1\r\nHost: ${tunnel}.localhost\r\n${fields}Connection: close\r\n\r\n`);
    return normal(await visitor.untilEnd());
  }

  test('requests are relayed, and counted as that', async () => {
    const relayed = async (door: Door): Promise<number> =>
      (await scrape(door.node.metricsPort)).get('tunnel_relayed_requests_total') ?? Number.NaN;
    const before = [await relayed(rig.owner), await relayed(rig.other)];
    await rig.compare((door) => answerTo(door, 'raw', '/head'));
    assert.deepEqual([await relayed(rig.owner), await relayed(rig.other)], [before[0], (before[1] ?? 0) + 1]);
  });

  test('a request head reaches the service with its fields in order, their case and duplicates', async () => {
    const headers = [
      'Host',
      'app.localhost',
      'X-One',
      '1',
      'x-two',
      '',
      'X-ONE',
      '\xe9\xff',
      'Cookie',
      'a=1',
      'cookie',
      'b',
    ];
    const seen = await rig.compare(async (door) => {
      const page = await visit(door.url('app', '/fields?a=%20b;c'), { headers });
      return (JSON.parse(page.text) as string[]).slice(0, headers.length);
    });
    assert.deepEqual(seen, headers);
  });

  test('the visitor address, the request id and the trace context reach the service', async () => {
    const trace = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const told = [
      'x-forwarded-for',
      'x-request-id',
      'x-forwarded-proto',
      'x-forwarded-host',
      'traceparent',
      'tracestate',
    ];
    const seen = await rig.compare(async (door) => {
      const page = await visit(door.url('app', '/fields'), {
        headers: {
          ...{ host: 'app.localhost', 'x-forwarded-for': '203.0.113.9', 'x-forwarded-proto': 'https' },
          ...{ 'x-request-id': 'from-the-proxy-1', traceparent: trace, tracestate: 'a=1,b=2' },
        },
      });
      return told.map((name) => fieldValues(JSON.parse(page.text) as string[], name));
    });
    assert.deepEqual(seen, [
      ...[['203.0.113.9, 127.0.0.1'], ['from-the-proxy-1'], ['https'], ['app.localhost'], [trace], ['a=1,b=2']],
    ]);
  });

  test('each kind of answer arrives with the same bytes', async () => {
    for (const path of Object.keys(RAW_ANSWERS)) {
      const text = await rig.compare((door) =>
        answerTo(door, 'raw', path, path === '/length' ? 'HEAD' : 'GET', 'TE: trailers\r\n'),
      );
      const { status, holds } = EXPECTED[path] ?? {};
      assert.ok(status !== undefined && holds !== undefined, path);
      assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `), path);
      assert.match(text, holds, path);
    }
  });

  test('an answer head keeps order, case, duplicates and bytes above ASCII', async () => {
    const text = await rig.compare((door) => answerTo(door, 'raw', '/head'));
    const given = (RAW_ANSWERS['/head'] ?? '').split('\r\n').slice(1, 7);
    assert.deepEqual(text.split('\r\n').slice(1, 7), given);
  });

  test('refusals say the same', async () => {
    for (const [tunnel, path, code, status] of [
      ['refused', '/', 'service_unreachable', 502],
      ['none', '/', 'tunnel_not_found', 404],
      ['raw', '/silent', 'connection_closed', 502],
      ['raw', '/wrong', 'bad_response', 502],
    ] as const) {
      const text = await rig.compare((door) => answerTo(door, tunnel, path, 'GET', 'Accept: application/json\r\n'));
      assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} [\\s\\S]*"code":"${code}"`));
    }
  });

  test('pipelined requests are answered in order', async () => {
    const text = await rig.compare(async (door) => {
      const visitor = door.raw();
      const paths = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? '/head' : '/nothing'));
      visitor.send(paths.map((path) => `GET ${path} HTTP/1.1\r\nHost: raw.localhost\r\n\r\n`).join(''));
      visitor.send('GET /early HTTP/1.1\r\nHost: raw.localhost\r\nConnection: close\r\n\r\n');
      return visitor.untilEnd();
    });
    assert.equal(text.match(/HTTP\/1\.1 (299|204) /g)?.length, 20);
  });

  test('a visitor who waits for 100 Continue gets it before his body is sent', async () => {
    const text = await rig.compare(async (door) => {
      const visitor = door.raw();
      visitor.send('POST /hash HTTP/1.1\r\nHost: app.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n');
      visitor.send('Connection: close\r\n\r\n');
      await visitor.until('100 Continue\r\n\r\n');
      visitor.send('hello');
      return visitor.untilEnd();
    });
    assert.ok(text.endsWith(sha256('hello')));
  });

  test('trailers of a request reach the service, and a body without a length too', async () => {
    const seen = await rig.compare(async (door) => {
      const page = await visit(door.url('app', '/hash'), {
        method: 'POST',
        headers: { host: 'app.localhost', 'transfer-encoding': 'chunked', trailer: 'X-Sum' },
        body: 'some bytes',
        trailers: { 'X-Sum': 'abc' },
      });
      return [page.text, page.headers['x-trailers']];
    });
    assert.deepEqual(seen, [sha256('some bytes'), '["X-Sum","abc"]']);
  });

  test('60 KB of fields pass', async () => {
    const many = Array.from({ length: 60 }, (_, i) => [`X-Field-${i}`, `${i}-`.padEnd(1000, 'x')]).flat();
    const seen = await rig.compare(async (door) => {
      const page = await visit(door.url('app', '/fields'), { headers: ['Host', 'app.localhost', ...many] });
      return (JSON.parse(page.text) as string[]).slice(2, 2 + many.length);
    });
    assert.deepEqual(seen, many);
  });

  test(`${TRANSFER / MIB} MiB up and down arrive whole, in memory that does not grow with them`, async () => {
    for (const door of [rig.owner, rig.other]) {
      const warm = randomBytes(4 * MIB);
      assert.ok((await visit(door.url('app', '/echo'), { method: 'POST', body: warm })).body.equals(warm));
    }
    const idle = [rig.owner.node.peakMemory, rig.other.node.peakMemory];
    const piece = randomBytes(MIB);
    const whole = createHash('sha256');
    for (const each of repeated(piece)) whole.update(each);
    const expected = whole.digest('hex');
    await rig.compare(async (door) => {
      let bytes = 0;
      const down = await visit(door.url('app', `/pour/${TRANSFER}`), {
        onData: (chunk) => {
          bytes += chunk.length;
        },
      });
      const up = await visit(door.url('app', '/hash'), {
        method: 'PUT',
        headers: { host: 'app.localhost', 'content-length': TRANSFER },
        body: Readable.from(repeated(piece)),
      });
      assert.deepEqual([bytes, up.text], [TRANSFER, expected]);
      return [down.complete, up.complete, down.status, up.status];
    });
    for (const [i, { node }] of [rig.owner, rig.other].entries()) {
      const growth = node.peakMemory - (idle[i] ?? 0);
      assert.ok(growth < MEMORY_GROWTH, `${node.name} grew by ${(growth / MIB).toFixed(1)} MiB`);
    }
  });

  test('a visitor who reads slowly holds the service back, in bounded memory', async () => {
    const written = await rig.compare(async (door) => {
      const path = `/endless/${door.node.name}`;
      const idle = [rig.owner.node.peakMemory, rig.other.node.peakMemory];
      const visitor = door.raw();
      visitor.socket.pause();
      visitor.send(`GET ${path} HTTP/1.1\r\nHost: app.localhost\r\n\r\n`);
      await until('the service is asked', () => rig.services.last(path) !== undefined);
      let before = -1;
      await until(
        'the service is held back',
        async () => {
          await new Promise((resolve) => setTimeout(resolve, 200));
          const now = await heldBytes(rig);
          const stands = now === before && now > 0;
          before = now;
          return stands;
        },
        15_000,
      );
      for (const [i, { node }] of [rig.owner, rig.other].entries()) {
        const growth = node.peakMemory - (idle[i] ?? 0);
        assert.ok(growth < MEMORY_GROWTH, `${node.name} grew by ${(growth / MIB).toFixed(1)} MiB`);
      }
      visitor.socket.destroy();
      await until('the service hears of it', () => rig.services.last(path)?.closed === true);
      await until('nothing is held', async () => (await heldBytes(rig)) === 0);
      return rig.services.last(path)?.closed;
    });
    assert.equal(written, true);
  });
});

/** What must be found in the answer to each path of the raw service, beside what the owner's answer says. */
const EXPECTED: Readonly<Record<string, { readonly status: string; readonly holds: RegExp }>> = {
  '/head': { status: '299', holds: /\r\n\r\nhello$/ },
  '/early': {
    status: '103',
    holds: /Link: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 103 [\s\S]*HTTP\/1\.1 200 OK\r\n[\s\S]*ok$/,
  },
  '/length': { status: '200', holds: /Content-Length: 100\r\n[\s\S]*\r\n\r\n$/ },
  '/nothing': { status: '204', holds: /X-A: 1\r\n[\s\S]*\r\n\r\n$/ },
  '/same': { status: '304', holds: /ETag: "x"\r\n[\s\S]*\r\n\r\n$/ },
  '/trailers': { status: '200', holds: /\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n$/ },
  '/old': { status: '200', holds: /until the end/ },
  '/wrong': { status: '502', holds: /bad_response/ },
  '/cut': { status: '200', holds: /\r\n\r\nonly this$/ },
  '/silent': { status: '502', holds: /connection_closed/ },
};

/** Without what differs from one request to the next in any case. */
function normal(text: string): string {
  return text
    .replace(/^(Date|X-Request-Id): .*$/gim, '$1: …')
    .replace(/("request_id":|request id: )"?[\w-]+"?/g, '$1…');
}

async function heldBytes(rig: ParityRig): Promise<number> {
  const nodes = await Promise.all([rig.owner, rig.other].map(({ node }) => scrape(node.metricsPort)));
  return nodes.reduce((sum, metrics) => sum + (metrics.get('tunnel_buffered_bytes') ?? 0), 0);
}

/** As many bytes as one transfer has. */
function* repeated(piece: Buffer): Generator<Buffer> {
  for (let i = 0; i < TRANSFER / piece.length; i += 1) yield piece;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
