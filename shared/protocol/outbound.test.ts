import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { RecordingSink } from '../testkit/session-pair.ts';
import { encodeFrame, FAIR_DATA_BYTES, FRAME_HEADER_BYTES, FrameType } from './frame.ts';
import { Outbound, type Turn } from './outbound.ts';
import { Session } from './session.ts';
import { CaptureSocket } from './vectors/capture-socket.ts';
import type { RecordedFrame } from './vectors/frame-recorder.ts';

const KIB = 1024;

/** A stream as far as Outbound knows it: writes directly where there is room, else waits in line. */
class Writer implements Turn {
  readonly id: number;
  readonly sent: Buffer[] = [];
  readonly waiting: Buffer[] = [];
  readonly #outbound: Outbound;
  #inRing = false;

  constructor(id: number, outbound: Outbound) {
    this.id = id;
    this.#outbound = outbound;
  }

  write(payload: Buffer): void {
    this.sent.push(payload);
    if (this.waiting.length === 0 && this.#outbound.hasRoom(FRAME_HEADER_BYTES + payload.length)) {
      this.#outbound.frame(FrameType.Data, 0, this.id, payload, 0, payload.length);
      return;
    }
    this.waiting.push(payload);
    if (this.#inRing) return;
    this.#inRing = true;
    this.#outbound.enqueue(this);
  }

  takeTurn(): boolean {
    const payload = this.waiting.shift();
    if (payload !== undefined) this.#outbound.frame(FrameType.Data, 0, this.id, payload, 0, payload.length);
    this.#inRing = this.waiting.length > 0;
    return this.#inRing;
  }
}

const size = fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 20 * KIB }), fc.nat({ max: 64 * KIB }));
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('data' as const), stream: fc.nat({ max: 3 }), size }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('control' as const), size: fc.nat({ max: 30 * KIB }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('wait' as const), turns: fc.nat({ max: 3 }) }) },
);

describe('outbound', () => {
  test('keeps each stream in order, passes waiting streams with control frames and loses nothing', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 60 }),
        fc.array(fc.nat({ max: 4 }), { minLength: 1, maxLength: 8 }),
        fc.constantFrom(1, 16 * KIB, 200 * KIB),
        async (steps, delays, highWaterMark) => {
          let write = 0;
          const socket = new CaptureSocket(() => delays[write++ % delays.length] ?? 0, highWaterMark);
          const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
          const writers = [1000, 1002, 1004, 1006].map((id) => new Writer(id, outbound));
          const controls: { payload: Buffer; waiting: Buffer[] }[] = [];
          let number = 0;
          for (const each of steps) {
            number += 1;
            if (each.kind === 'wait') {
              for (let turn = 0; turn < each.turns; turn += 1) await nextTurn();
            } else if (each.kind === 'data') {
              writers[each.stream]?.write(numbered(number, each.size));
            } else {
              const payload = numbered(number, each.size);
              controls.push({ payload, waiting: writers.flatMap((writer) => writer.waiting) });
              outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, payload));
            }
          }
          const total = writers.reduce((sum, writer) => sum + writer.sent.length, controls.length);
          await until(() => complete(socket) === total);
          check(socket.frames, writers, controls);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('gives waiting streams one frame each in turn', async () => {
    const socket = new CaptureSocket(() => 2, 1);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8)));
    await nextTurn();
    const writers = [1000, 1002, 1004].map((id) => new Writer(id, outbound));
    for (const writer of writers) for (let i = 0; i < 8; i += 1) writer.write(numbered(i, FAIR_DATA_BYTES));
    await until(() => complete(socket) === 25);
    const order = socket.frames.slice(1).map(({ streamId }) => streamId);
    assert.deepEqual(order, Array.from({ length: 8 }, () => [1000, 1002, 1004]).flat());
  });

  test('has no room in front of streams that wait', async () => {
    const socket = new CaptureSocket();
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    assert.equal(outbound.hasRoom(100), true);
    const writer = new Writer(1000, outbound);
    writer.waiting.push(numbered(1, 10));
    outbound.enqueue(writer);
    assert.equal(outbound.hasRoom(100), false);
    await until(() => complete(socket) === 1);
    assert.equal(outbound.hasRoom(100), true);
  });

  test('hands a socket that pushes back no more than two batches at a time', async () => {
    const socket = new CaptureSocket(() => Number.POSITIVE_INFINITY, 1);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    const writer = new Writer(1000, outbound);
    for (let i = 0; i < 100; i += 1) writer.write(numbered(i, 64 * KIB));
    for (let turn = 0; turn < 10; turn += 1) await nextTurn();
    assert.ok(socket.writableLength <= 2 * (128 + 64) * KIB, `${socket.writableLength} bytes are queued`);
    assert.ok(writer.waiting.length > 90);
  });

  test('writes what a turn of the event loop brings together in one piece', async () => {
    const socket = new CaptureSocket();
    let writes = 0;
    const write = socket._write.bind(socket);
    socket._write = (chunk, encoding, done) => {
      writes += 1;
      write(chunk, encoding, done);
    };
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    for (let i = 0; i < 20; i += 1) outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, numbered(i, 8)));
    await until(() => complete(socket) === 20);
    assert.equal(writes, 1);
  });

  test('keeps control frames in order when one of them is larger than what is left of a batch', async () => {
    const socket = new CaptureSocket(() => 0, KIB * KIB);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    const fill = (): void => {
      const piece = numbered(0, 15 * KIB);
      while (outbound.hasRoom(FRAME_HEADER_BYTES + piece.length))
        outbound.frame(FrameType.Data, 0, 1000, piece, 0, piece.length);
    };
    // A few batches, until the buffer has grown to hold a whole one.
    for (let i = 0; i < 6; i += 1) {
      fill();
      await until(() => socket.writableLength === 0 && outbound.hasRoom(100 * KIB));
    }
    fill();
    outbound.control(encodeFrame(FrameType.RegisterTunnel, 1, 0, numbered(1, 20 * KIB)));
    outbound.control(encodeFrame(FrameType.UnregisterTunnel, 1, 0, numbered(2, 10)));
    await until(() => socket.frames.filter(({ streamId }) => streamId === 0).length === 2);
    const order = socket.frames.filter(({ streamId }) => streamId === 0).map(({ type }) => type);
    assert.deepEqual(order, [FrameType.RegisterTunnel, FrameType.UnregisterTunnel]);
  });

  test('counts against the backlog only what still waits', async () => {
    const socket = new CaptureSocket(() => 1, 1);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    for (let i = 1; i <= 5; i += 1) {
      for (let j = 0; j < 20; j += 1) outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, numbered(j, 30 * KIB)));
      await until(() => complete(socket) === 20 * i);
    }
  });

  test('forgets a stream that leaves the line', async () => {
    const socket = new CaptureSocket(() => 3, 1);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8)));
    await nextTurn();
    const [gone, stays] = [new Writer(1000, outbound), new Writer(1002, outbound)];
    gone.write(numbered(1, 10));
    stays.write(numbered(2, 10));
    outbound.remove(gone);
    await until(() => complete(socket) === 2);
    assert.deepEqual(
      socket.frames.map(({ streamId }) => streamId),
      [0, 1002],
    );
  });

  test('writes what is gathered when it is closed, and nothing later', async () => {
    const socket = new CaptureSocket();
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    outbound.control(encodeFrame(FrameType.Error, 0, 0, '{}'));
    outbound.close();
    outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8)));
    await nextTurn();
    assert.deepEqual(
      socket.frames.map(({ type }) => type),
      [FrameType.Error],
    );
  });

  test('writes the control frames that wait when it is closed, also to a socket that pushes back', async () => {
    const socket = new CaptureSocket(() => 2, 1);
    const outbound = new Outbound(socket, () => assert.fail('the peer reads'));
    outbound.control(encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8)));
    await nextTurn();
    outbound.control(encodeFrame(FrameType.Error, 0, 0, '{}'));
    outbound.close();
    await until(() => complete(socket) === 2);
    assert.deepEqual(
      socket.frames.map(({ type }) => type),
      [FrameType.Heartbeat, FrameType.Error],
    );
  });
});

/**
 * A peer that floods a session with heartbeats and reads none of the echoes filled the backlog; closing the session then put
 * its Error frame into the same full backlog, which closed the session again, until the stack was full and the process died.
 */
describe('a peer that does not read', () => {
  test('is given up with overloaded, once, when control frames pile up', async () => {
    const socket = new CaptureSocket(() => Number.POSITIVE_INFINITY);
    const ended: (string | undefined)[] = [];
    const session = new Session(
      socket,
      {
        onControl: () => {},
        onStream: () => new RecordingSink(),
        onGoAway: () => {},
        onClosed: (code) => ended.push(code),
      },
      { role: 'acceptor' },
    );
    session.authenticated();
    const heartbeat = encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8));
    const flood = Buffer.concat(Array.from({ length: 3000 }, () => heartbeat));
    for (let i = 0; i < 30 && session.state !== 'closed'; i += 1) {
      assert.doesNotThrow(() => socket.emit('data', flood));
      await nextTurn();
    }
    assert.deepEqual(ended, ['overloaded']);
  });
});

function check(
  frames: readonly RecordedFrame[],
  writers: readonly Writer[],
  controls: readonly { payload: Buffer; waiting: readonly Buffer[] }[],
): void {
  for (const writer of writers) {
    const payloads = frames.filter(({ streamId }) => streamId === writer.id).map(({ payload }) => payload);
    assert.deepEqual(payloads, writer.sent, `stream ${writer.id}`);
  }
  const position = new Map(frames.map(({ payload }, at) => [payload.readUInt32BE(0), at]));
  for (const { payload, waiting } of controls) {
    const at = position.get(payload.readUInt32BE(0));
    assert.ok(at !== undefined && frames[at]?.payload.equals(payload), 'a control frame was lost');
    for (const passed of waiting) {
      assert.ok(at < (position.get(passed.readUInt32BE(0)) ?? -1), 'a control frame waited behind a stream');
    }
  }
}

/** A payload that says which it is. */
function numbered(number: number, size: number): Buffer {
  const payload = Buffer.alloc(4 + size, number % 251);
  payload.writeUInt32BE(number);
  return payload;
}

/** Frames that have arrived whole. */
function complete(socket: CaptureSocket): number {
  const bytes = socket.written;
  let count = 0;
  for (let at = 0; at + FRAME_HEADER_BYTES <= bytes.length; count += 1) {
    at += FRAME_HEADER_BYTES + bytes.readUInt32BE(at + 8);
    if (at > bytes.length) break;
  }
  return count;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 5000 && !condition(); turn += 1) await nextTurn();
  assert.ok(condition(), 'not everything was written');
}
