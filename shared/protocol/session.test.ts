import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { on, once } from 'node:events';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { codeFromWire } from '../errors/codes.ts';
import { RecordingSink, type SessionPair, sessionPair, socketPair } from '../testkit/session-pair.ts';
import { ByteBudget } from './budget.ts';
import { encodeFrame, Flag, FrameType, INITIAL_WINDOW, LAST_STREAM_ID } from './frame.ts';
import { encodeRequestHead } from './heads.ts';
import { Session } from './session.ts';

async function withPair(
  run: (pair: SessionPair) => Promise<void>,
  ...options: Parameters<typeof sessionPair>
): Promise<void> {
  const pair = await sessionPair(...options);
  try {
    await run(pair);
  } finally {
    pair.close();
  }
}

const head = { status: 200, reason: 'OK', headers: ['Content-Type', 'text/plain', 'X-Dup', 'a', 'x-dup', 'b'] };

describe('a stream', () => {
  test('carries a request and its answer with header order, case and duplicates kept', () =>
    withPair(async (pair) => {
      const headers = ['Host', 'demo.localhost', 'Cookie', 'a=\xe9', 'cookie', ''];
      const { sink } = pair.open({ method: 'PURGE', target: '/a?b=c', headers });
      const far = await pair.acceptedAt(0);
      assert.deepEqual(far.head, { method: 'PURGE', target: '/a?b=c', tunnel: 'demo', meta: '', headers });
      far.stream.sendHead(head, Buffer.from('hello'), true);
      await sink.until(() => sink.closed !== undefined);
      assert.deepEqual(sink.heads, [head]);
      assert.equal(sink.body.toString(), 'hello');
      assert.deepEqual(sink.closed, { code: undefined, message: '' });
      assert.equal(pair.opener.load, 0);
    }));

  test('carries interim heads, then a final head, then trailers', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      const { stream } = await pair.acceptedAt(0);
      stream.sendHead({ status: 103, reason: 'Early Hints', headers: ['Link', '</a.css>'] }, undefined, false);
      stream.sendHead(head, undefined, false);
      stream.write(Buffer.from('x'), false);
      stream.sendTrailers(['Grpc-Status', '0']);
      await sink.until(() => sink.closed !== undefined);
      assert.deepEqual(
        sink.heads.map((each) => each.status),
        [103, 200],
      );
      assert.deepEqual(sink.trailers, ['Grpc-Status', '0']);
      assert.equal(sink.body.toString(), 'x');
    }));

  test('half-closes each way by itself', () =>
    withPair(async (pair) => {
      const { stream, sink } = pair.open({}, Buffer.from('first'), false);
      const far = await pair.acceptedAt(0);
      far.stream.sendHead(head, undefined, false);
      far.stream.end();
      await sink.until(() => sink.ended);
      assert.equal(sink.closed, undefined);
      stream.write(Buffer.from(' second'), true);
      await far.sink.until(() => far.sink.ended && far.sink.closed !== undefined);
      assert.equal(far.sink.body.toString(), 'first second');
      assert.deepEqual(sink.closed, { code: undefined, message: '' });
    }));

  test('moves megabytes both ways at once with every byte in place', () =>
    withPair(async (pair) => {
      const up = randomBytes(5_000_000);
      const down = randomBytes(7_000_000);
      const { stream, sink } = pair.open({}, undefined, false);
      const far = await pair.acceptedAt(0);
      far.stream.sendHead(head, undefined, false);
      await Promise.all([
        pump(stream, sink, up),
        pump(far.stream, far.sink, down),
        sink.until(() => sink.ended),
        far.sink.until(() => far.sink.ended),
      ]);
      assert.ok(sink.body.equals(down));
      assert.ok(far.sink.body.equals(up));
    }));

  test('sends no more than its window to a reader that does not consume', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      sink.autoConsume = false;
      const { stream, sink: farSink } = await pair.acceptedAt(0);
      stream.sendHead(head, undefined, false);
      assert.equal(stream.write(Buffer.alloc(INITIAL_WINDOW * 2), false), false);
      await sink.until(() => sink.bytes >= INITIAL_WINDOW);
      await roundTrip(pair);
      assert.equal(sink.bytes, INITIAL_WINDOW);
      assert.equal(pair.opener.held, INITIAL_WINDOW);
      sink.stream?.consumed(sink.bytes);
      await sink.until(() => sink.bytes === INITIAL_WINDOW * 2);
      await farSink.until(() => farSink.writable > 0);
    }));

  test('that is reset tells the other side the code and message, and frees what it held', () =>
    withPair(async (pair) => {
      const { sink } = pair.open({}, undefined, false);
      sink.autoConsume = false;
      const far = await pair.acceptedAt(0);
      far.stream.sendHead(head, Buffer.alloc(1000), false);
      await sink.until(() => sink.bytes === 1000);
      far.stream.reset('timeout', 'too slow');
      await sink.until(() => sink.closed !== undefined);
      assert.deepEqual(sink.closed, { code: 'timeout', message: 'too slow' });
      assert.deepEqual(far.sink.closed, { code: 'timeout', message: 'too slow' });
      assert.equal(pair.opener.held, 0);
    }));

  test('finished by the acceptor ends an upload that is not wanted any more', () =>
    withPair(async (pair) => {
      const { stream, sink } = pair.open({}, undefined, false);
      const far = await pair.acceptedAt(0);
      far.stream.sendHead(head, undefined, true);
      far.stream.finish();
      await sink.until(() => sink.closed !== undefined);
      assert.deepEqual(sink.closed, { code: undefined, message: '' });
      assert.equal(stream.isOpen, false);
    }));
});

describe('a stream that ends inside onStream', () => {
  test('still tells its sink, once', async () => {
    const [near, far] = await socketPair();
    const sink = new RecordingSink();
    const handler = { onControl: () => {}, onGoAway: () => {}, onClosed: () => {} };
    const opener = new Session(near, { ...handler, onStream: () => new RecordingSink() }, { role: 'opener' });
    const onStream = (stream: ReturnType<Session['open']>): RecordingSink => {
      stream.reset('timeout', 'at once');
      return sink;
    };
    const acceptor = new Session(far, { ...handler, onStream }, { role: 'acceptor' });
    opener.authenticated();
    acceptor.authenticated();
    opener.open(
      { method: 'GET', target: '/', tunnel: 't', meta: '', headers: [] },
      undefined,
      false,
      new RecordingSink(),
    );
    await sink.until(() => sink.closed !== undefined);
    assert.deepEqual(sink.closed, { code: 'timeout', message: 'at once' });
    opener.close(undefined, 'test over');
    acceptor.close(undefined, 'test over');
  });
});

describe('a session', () => {
  test('lets small answers pass a bulk transfer', () =>
    withPair(async (pair) => {
      const bulk = pair.open();
      const bulkFar = await pair.acceptedAt(0);
      bulkFar.stream.sendHead(head, undefined, false);
      const pumping = pump(bulkFar.stream, bulkFar.sink, Buffer.alloc(20_000_000));
      await bulk.sink.until(() => bulk.sink.bytes > 1_000_000);
      for (let i = 1; i <= 20; i += 1) {
        const before = bulk.sink.bytes;
        const small = pair.open();
        const far = await pair.acceptedAt(i);
        far.stream.sendHead(head, Buffer.from('small'), true);
        await small.sink.until(() => small.sink.closed !== undefined);
        assert.ok(bulk.sink.bytes - before < 8_000_000, 'the small answer waited for the bulk transfer');
      }
      await pumping;
    }));

  test('shares the connection between competing bulk streams', () =>
    withPair(async (pair) => {
      const sinks = [pair.open().sink, pair.open().sink, pair.open().sink];
      const size = 4_000_000;
      await pair.acceptedAt(2);
      const pumps = pair.accepted.map(({ stream, sink }) => {
        stream.sendHead(head, undefined, false);
        return pump(stream, sink, Buffer.alloc(size));
      });
      await sinks[0]?.until(() => sinks[0]?.bytes === size);
      for (const sink of sinks) assert.ok(sink.bytes > size / 2, `a stream got only ${sink.bytes} of ${size}`);
      await Promise.all(pumps);
    }));

  test('measures the round trip and stays alive through heartbeats alone', () =>
    withPair(
      async (pair) => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        assert.equal(pair.opener.state, 'open');
        assert.ok(pair.opener.roundTrip < 100);
      },
      { heartbeatInterval: 40, deadAfter: 120 },
      { heartbeatInterval: 40, deadAfter: 120 },
    ));

  test('is given up when nothing comes for too long', () =>
    withPair(
      async (pair) => {
        const { sink } = pair.open();
        pair.sockets[1].pause();
        await sink.until(() => sink.closed !== undefined);
        assert.equal(sink.closed?.code, 'connection_closed');
        assert.match(pair.openerEvents.join(), /closed timeout/);
      },
      { heartbeatInterval: 30, deadAfter: 100 },
    ));

  test('that was silent is probed when a stream opens, and is suspect while the probe is unanswered', () =>
    withPair(
      async (pair) => {
        await roundTrip(pair);
        assert.equal(pair.opener.available, true);
        pair.sockets[1].pause();
        await new Promise((resolve) => setTimeout(resolve, 30));
        pair.open();
        assert.equal(pair.opener.available, true);
        await new Promise((resolve) => setTimeout(resolve, 60));
        assert.equal(pair.opener.available, false);
        pair.sockets[1].resume();
        await pair.acceptedAt(1);
        await roundTrip(pair);
        assert.equal(pair.opener.available, true);
      },
      { probeAfter: 20, probeTimeout: 40 },
    ));

  test('that goes away finishes its streams, those on their way included, then closes', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      const far = await pair.acceptedAt(0);
      pair.acceptor.goAway('maintenance', 5000);
      const late = pair.open();
      const farLate = await pair.acceptedAt(1);
      assert.throws(() => pair.open(), { code: 'not_processed' });
      farLate.stream.sendHead(head, Buffer.from('too'), true);
      await late.sink.until(() => late.sink.closed !== undefined);
      assert.equal(late.sink.body.toString(), 'too');
      assert.equal(pair.acceptor.state, 'draining');
      far.stream.sendHead(head, Buffer.from('done'), true);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.body.toString(), 'done');
      assert.match(pair.openerEvents.join(), new RegExp(`go-away maintenance ${LAST_STREAM_ID}`));
      assert.equal(pair.acceptor.state, 'closed');
    }));

  test('that goes away refuses what is opened by a peer that knows it', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      const far = await pair.acceptedAt(0);
      pair.acceptor.goAway('maintenance', 5000);
      // The echo of the heartbeat behind the Go Away.
      for await (const [chunk] of on(pair.sockets[1], 'data')) if (chunk.includes('go away!')) break;
      const refusal = once(pair.sockets[0], 'data');
      pair.sockets[0].write(openFrame(1002));
      const [frame] = (await refusal) as [Buffer];
      assert.equal(frame[1], FrameType.CloseStream);
      assert.equal(codeFromWire(frame.readUInt16BE(12)), 'not_processed');
      far.stream.sendHead(head, undefined, true);
      await sink.until(() => sink.closed !== undefined);
    }));

  test('closes at the deadline of its going away, whatever is left', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      await pair.acceptedAt(0);
      pair.opener.goAway('maintenance', 50);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.closed?.code, 'connection_closed');
    }));

  test('opens no stream beyond its limit or its last id', () =>
    withPair(
      async (pair) => {
        pair.open({}, undefined, false);
        pair.open({}, undefined, false);
        assert.throws(() => pair.open(), { code: 'overloaded' });
        pair.accepted.length = 0;
      },
      { maxStreams: 2 },
    ));

  test('counts as used up after its last stream id', () =>
    withPair(
      async (pair) => {
        pair.open();
        assert.equal(pair.opener.available, true);
        pair.open();
        assert.equal(pair.opener.available, false);
        assert.throws(() => pair.open(), { code: 'not_processed' });
      },
      { lastStreamId: 1002 },
    ));

  test('over its memory budget resets the stream that holds most, and no other', () =>
    withPair(
      async (pair) => {
        const greedy = pair.open();
        const modest = pair.open();
        greedy.sink.autoConsume = false;
        modest.sink.autoConsume = false;
        const farModest = await pair.acceptedAt(1);
        const farGreedy = await pair.acceptedAt(0);
        farModest.stream.sendHead(head, Buffer.alloc(8000), false);
        farGreedy.stream.sendHead(head, undefined, false);
        farGreedy.stream.write(Buffer.alloc(200_000), false);
        await greedy.sink.until(() => greedy.sink.closed !== undefined);
        assert.equal(greedy.sink.closed?.code, 'overloaded');
        assert.equal(modest.sink.closed, undefined);
        assert.equal(pair.opener.held, 8000);
      },
      { budget: new ByteBudget(100_000) },
    ));
});

describe('hostile frames', () => {
  const cases: [string, Buffer, string][] = [
    ['a wrong version', Buffer.from('020000000000000000000000', 'hex'), 'invalid_frame'],
    ['an unknown type below 0x80', encodeFrame(0x7f, 0, 0, ''), 'invalid_frame'],
    ['a payload above the limit', Buffer.from('012100000000000000ffffffff', 'hex'), 'invalid_frame'],
    ['data for a stream that was never opened', encodeFrame(FrameType.Data, 0, 4000, 'x'), 'stream_not_found'],
    ['data for an odd id', encodeFrame(FrameType.Data, 0, 1001, 'x'), 'stream_not_found'],
    ['a stream opened towards the opener', openFrame(1000), 'invalid_frame'],
    ['a heartbeat of the wrong size', encodeFrame(FrameType.Heartbeat, 0, 0, 'x'), 'invalid_frame'],
    ['a window update of the wrong size', encodeFrame(FrameType.WindowUpdate, 0, 1000, 'x'), 'invalid_frame'],
    ['a go-away that is not JSON', encodeFrame(FrameType.GoAway, 0, 0, '{'), 'invalid_frame'],
  ];
  for (const [what, bytes, code] of cases) {
    test(`${what} ends the session with ${code}`, () =>
      withPair(async (pair) => {
        const { sink } = pair.open();
        pair.sockets[1].write(bytes);
        await sink.until(() => sink.closed !== undefined);
        assert.match(pair.openerEvents.join(), new RegExp(`closed ${code}`));
        assert.equal(sink.closed?.code, 'connection_closed');
      }));
  }

  test('a fault in one stream resets that stream and no other', () =>
    withPair(async (pair) => {
      const bad = pair.open();
      const good = pair.open();
      const far = await pair.acceptedAt(1);
      const badHead = Buffer.from('\0\0\0\x06999999', 'latin1');
      pair.sockets[1].write(encodeFrame(FrameType.Data, Flag.Head, 1000, badHead));
      await bad.sink.until(() => bad.sink.closed !== undefined);
      assert.equal(bad.sink.closed?.code, 'invalid_frame');
      far.stream.sendHead(head, Buffer.from('fine'), true);
      await good.sink.until(() => good.sink.closed !== undefined);
      assert.equal(good.sink.body.toString(), 'fine');
    }));

  test('data beyond the credit resets the stream', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      sink.autoConsume = false;
      await pair.acceptedAt(0);
      for (let i = 0; i < 5; i += 1) {
        pair.sockets[1].write(encodeFrame(FrameType.Data, 0, 1000, Buffer.alloc(64 * 1024)));
      }
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.closed?.code, 'flow_control_error');
      assert.equal(pair.opener.state, 'open');
    }));

  test('unknown types from 0x80 and frames of closed streams are ignored', () =>
    withPair(async (pair) => {
      const { sink } = pair.open();
      const far = await pair.acceptedAt(0);
      far.stream.sendHead(head, undefined, true);
      await sink.until(() => sink.closed !== undefined);
      pair.sockets[1].write(encodeFrame(0x90, 0, 7, 'whatever'));
      pair.sockets[1].write(encodeFrame(FrameType.Data, Flag.EndStream, 1000, 'late'));
      await roundTrip(pair);
      assert.equal(pair.opener.state, 'open');
    }));

  test('an id that is not above the last one ends the acceptor', () =>
    withPair(async (pair) => {
      pair.open();
      await pair.acceptedAt(0);
      pair.sockets[0].write(openFrame(1000));
      await once(pair.sockets[0], 'close');
      assert.match(pair.acceptorEvents.join(), /closed invalid_frame/);
    }));

  test('anything before authentication but auth and heartbeats ends the session', async () => {
    const [near, far] = await socketPair();
    const events: string[] = [];
    const session = new Session(
      near,
      {
        onControl: () => {},
        onStream: () => new RecordingSink(),
        onGoAway: () => {},
        onClosed: (code) => events.push(String(code)),
      },
      { role: 'acceptor' },
    );
    far.on('error', () => {});
    far.resume();
    far.write(openFrame(1000));
    await once(far, 'close');
    assert.deepEqual(events, ['invalid_frame']);
    assert.equal(session.load, 0);
  });

  test('heartbeats before authentication are answered a few times only', async () => {
    const [near, far] = await socketPair();
    const events: string[] = [];
    new Session(
      near,
      {
        onControl: () => {},
        onStream: () => new RecordingSink(),
        onGoAway: () => {},
        onClosed: (code) => events.push(String(code)),
      },
      { role: 'acceptor' },
    );
    far.on('error', () => {});
    far.resume();
    for (let i = 0; i < 9; i += 1) far.write(encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8)));
    await once(far, 'close');
    assert.deepEqual(events, ['invalid_frame']);
  });

  test('of sessions that share a budget, the one that holds most gives way', async () => {
    const shared = new ByteBudget(300_000);
    const greedy = await sessionPair({ budget: new ByteBudget(1_000_000, shared) });
    const modest = await sessionPair({ budget: new ByteBudget(1_000_000, shared) });
    try {
      const hog = greedy.open();
      hog.sink.autoConsume = false;
      (await greedy.acceptedAt(0)).stream.sendHead(head, undefined, false);
      greedy.accepted[0]?.stream.write(Buffer.alloc(250_000), false);
      await hog.sink.until(() => hog.sink.bytes === 250_000);
      const small = modest.open();
      small.sink.autoConsume = false;
      (await modest.acceptedAt(0)).stream.sendHead(head, undefined, false);
      modest.accepted[0]?.stream.write(Buffer.alloc(100_000), false);
      await hog.sink.until(() => hog.sink.closed !== undefined);
      assert.equal(hog.sink.closed?.code, 'overloaded');
      await small.sink.until(() => small.sink.bytes === 100_000);
      assert.equal(small.sink.closed, undefined);
    } finally {
      greedy.close();
      modest.close();
    }
    assert.equal(shared.used, 0);
  });

  test('random frames never throw, never leak budget and leave the session open or closed with a code', async () => {
    const frame = fc.tuple(
      fc.constantFrom(0x00, 0x01, 0x10, 0x12, 0x20, 0x21, 0x21, 0x21, 0x22, 0x23, 0x90, 0xff),
      fc.integer({ min: 0, max: 7 }),
      fc.constantFrom(0, 1000, 1002, 1004, 1006, 1001, 9000),
      fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constant(Buffer.from('\0\0\0\x06200\nOK', 'latin1'))),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { maxLength: 30 }), async (frames) => {
        const pair = await sessionPair();
        try {
          for (let i = 0; i < 3; i += 1) pair.open({}, undefined, false);
          await pair.acceptedAt(2);
          pair.acceptor.close(undefined, 'the test speaks from here');
          const [near, far] = await socketPair();
          const events: string[] = [];
          const session = new Session(
            near,
            {
              onControl: () => {},
              onStream: () => new RecordingSink(),
              onGoAway: () => {},
              onClosed: (code) => events.push(String(code)),
            },
            { role: 'opener' },
          );
          session.authenticated();
          const sinks = [0, 1, 2].map(() => {
            const sink = new RecordingSink();
            sink.stream = session.open(
              { method: 'GET', target: '/', tunnel: 't', meta: '', headers: [] },
              undefined,
              false,
              sink,
            );
            return sink;
          });
          far.on('error', () => {});
          far.resume();
          for (const [type, flags, id, payload] of frames) far.write(encodeFrame(type, flags, id, payload));
          far.end();
          await once(near, 'close');
          assert.equal(session.held, 0);
          assert.equal(events.length, 1);
          for (const sink of sinks) assert.ok(sink.closed !== undefined);
        } finally {
          pair.close();
        }
      }),
      { numRuns: 60 },
    );
  });
});

function openFrame(id: number): Buffer {
  const text = encodeRequestHead({ method: 'GET', target: '/', tunnel: 'demo', meta: '', headers: [] });
  const payload = Buffer.alloc(4 + text.length);
  payload.writeUInt32BE(text.length, 0);
  payload.write(text, 4, 'latin1');
  return encodeFrame(FrameType.OpenStream, Flag.EndStream, id, payload);
}

/** Writes the bytes in pieces, waiting whenever the stream says so, then ends. */
async function pump(stream: ReturnType<Session['open']>, sink: RecordingSink, bytes: Buffer): Promise<void> {
  const piece = 50_000;
  for (let at = 0; at < bytes.length; at += piece) {
    const before = sink.writable;
    if (!stream.write(bytes.subarray(at, at + piece), false)) await sink.until(() => sink.writable > before);
  }
  stream.end();
}

/** Everything that either side has sent so far has arrived: a request and its answer went behind it. */
async function roundTrip(pair: SessionPair): Promise<void> {
  const count = pair.accepted.length;
  const { sink } = pair.open();
  const far = await pair.acceptedAt(count);
  far.stream.sendHead(head, undefined, true);
  await sink.until(() => sink.closed !== undefined);
}
