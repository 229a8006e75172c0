import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CulvertError } from '../errors/codes.ts';
import { FrameDecoder } from './decoder.ts';
import * as frames from './frame.ts';
import { encodeFrame, Flag, FRAME_HEADER_BYTES, FrameType, MAX_CONTROL_PAYLOAD, MAX_STREAM_PAYLOAD } from './frame.ts';
import { MAX_HEAD_BYTES } from './heads.ts';
import { FrameRecorder, type RecordedFrame } from './vectors/frame-recorder.ts';
import { rows } from './vectors/spec.ts';

const bytes = fc.oneof(
  { weight: 5, arbitrary: fc.uint8Array({ maxLength: 60 }) },
  { weight: 1, arbitrary: fc.uint8Array({ minLength: 1000, maxLength: 3000 }) },
);
const streamId = fc.nat({ max: 0xffff_ffff });
/** Any frame that the decoder must hand on, with what it must hand on. */
const frame: fc.Arbitrary<{ wire: Buffer; expected: RecordedFrame | undefined }> = fc.oneof(
  fc
    .tuple(fc.constantFrom(0x00, 0x01, 0x02, 0x10, 0x11, 0x12, 0x22, 0x23, 0xff), fc.nat(255), streamId, bytes)
    .map(([type, flags, id, payload]) => plain(type, flags, id, Buffer.from(payload))),
  fc
    .tuple(fc.nat(255), streamId, bytes)
    .map(([flags, id, payload]) => plain(FrameType.Data, flags & ~Flag.Head, id, Buffer.from(payload))),
  fc
    .tuple(fc.boolean(), fc.nat(255), streamId, bytes, bytes)
    .map(([open, flags, id, head, body]) => withHead(open, flags, id, Buffer.from(head), Buffer.from(body))),
  fc
    .tuple(fc.integer({ min: 0x80, max: 0xfe }), fc.nat(255), streamId, bytes)
    .map(([type, flags, id, payload]) => ({ wire: encodeFrame(type, flags, id, payload), expected: undefined })),
);

describe('the decoder', () => {
  test('gives the same frames however the bytes are split', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), fc.array(fc.nat(), { maxLength: 40 }), (list, cuts) => {
        const input = Buffer.concat(list.map(({ wire }) => wire));
        const expected = list.flatMap((each) => each.expected ?? []);
        assert.deepEqual(decode([input]), expected);
        assert.deepEqual(decode(split(input, cuts)), expected);
        if (input.length < 500) assert.deepEqual(decode(split(input, [...input.keys()])), expected);
      }),
      { numRuns: 300 },
    );
  });

  test('hands body bytes on as they come and copies none of them', () => {
    const body = Buffer.alloc(10_000, 'x');
    const wire = encodeFrame(FrameType.Data, 0, 1000, body);
    const pieces: Buffer[] = [];
    const decoder = new FrameDecoder({
      onControl: () => assert.fail(),
      onHead: () => assert.fail(),
      onData: (_flags, _id, chunk) => pieces.push(chunk),
    });
    const first = wire.subarray(0, 5000);
    decoder.feed(first);
    assert.deepEqual(
      pieces.map((piece) => piece.length),
      [5000 - FRAME_HEADER_BYTES],
    );
    assert.equal(pieces[0]?.buffer, first.buffer);
    decoder.feed(wire.subarray(5000));
    assert.ok(Buffer.concat(pieces).equals(body));
  });

  test('takes payloads and heads of exactly the largest size', () => {
    const head = Buffer.alloc(MAX_HEAD_BYTES, 'h');
    const largest = [
      plain(FrameType.Data, 0, 1000, Buffer.alloc(MAX_STREAM_PAYLOAD)),
      plain(FrameType.AuthRequest, 0, 0, Buffer.alloc(MAX_CONTROL_PAYLOAD)),
      withHead(true, 0, 1000, head, Buffer.alloc(MAX_STREAM_PAYLOAD - MAX_HEAD_BYTES - 4)),
    ];
    for (const { wire, expected } of largest) {
      assert.deepEqual(decode([wire]), [expected]);
      assert.deepEqual(decode(split(wire, [3, 13, 17, 70_000, 140_000])), [expected]);
    }
  });

  test('throws nothing but invalid_frame at random bytes, takes them all or stops for good', () => {
    fc.assert(
      fc.property(noise, fc.array(fc.nat(), { maxLength: 10 }), (input, cuts) => {
        const whole = outcome([input]);
        const pieces = outcome(split(input, cuts));
        assert.deepEqual(pieces, whole);
      }),
      { numRuns: 3000 },
    );
  });

  test('ignores everything once it was stopped, also within a chunk', () => {
    const wire = encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8));
    let calls = 0;
    const decoder: FrameDecoder = new FrameDecoder({
      onControl() {
        calls += 1;
        decoder.stop();
      },
      onHead: () => assert.fail(),
      onData: () => assert.fail(),
    });
    decoder.feed(Buffer.concat([wire, wire]));
    decoder.feed(wire);
    assert.equal(calls, 1);
  });
});

describe('PROTOCOL.md', () => {
  test('lists the types of frames, their numbers and limits', () => {
    const documented = rows('Types').map(([type, name = '', , , most]) => [
      name.replace(' ', ''),
      Number(type),
      number(most),
    ]);
    const actual = Object.entries(FrameType).map(([name, type]) => {
      const isBody = type === FrameType.OpenStream || type === FrameType.Data;
      return [name, type, isBody ? MAX_STREAM_PAYLOAD : MAX_CONTROL_PAYLOAD];
    });
    assert.deepEqual(documented, actual);
  });

  test('lists the flags', () => {
    const documented = rows('Flags').map(([bit, name = '']) => [name.replace('_', '').toLowerCase(), Number(bit)]);
    assert.deepEqual(
      documented,
      Object.entries(Flag).map(([name, bit]) => [name.toLowerCase(), bit]),
    );
  });

  test('states every limit as the code has it', () => {
    const limits = rows('Limits');
    for (const [name = '', value, , file = ''] of limits) {
      assert.equal(number(value), constant(file, name), `${name} in ${file}`);
    }
    const names = new Set(limits.map(([name]) => name));
    for (const [name, value] of Object.entries(frames)) {
      if (typeof value === 'number') assert.ok(names.has(name), `${name} is not in the table of limits`);
    }
  });
});

function plain(type: number, flags: number, id: number, payload: Buffer) {
  return {
    wire: encodeFrame(type, flags, id, payload),
    expected: { type, flags, streamId: id, head: undefined, payload },
  };
}

function withHead(open: boolean, flags: number, id: number, head: Buffer, body: Buffer) {
  const type = open ? FrameType.OpenStream : FrameType.Data;
  const bits = open ? flags : flags | Flag.Head;
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32BE(head.length);
  return {
    wire: encodeFrame(type, bits, id, Buffer.concat([prefix, head, body])),
    expected: { type, flags: bits, streamId: id, head: head.toString('latin1'), payload: body },
  };
}

/** Random bytes nearly all fail in their first byte, so most of these look like frames for a while. */
const noise = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((random) => Buffer.from(random)),
      fc
        .tuple(
          fc.nat(255),
          fc.nat(255),
          fc.nat(255),
          fc.oneof(fc.nat(50), fc.nat(300_000)),
          fc.uint8Array({ maxLength: 50 }),
        )
        .map(([type, flags, id, length, payload]) => {
          const wire = encodeFrame(type, flags, id, payload);
          wire.writeUInt32BE(length, 8);
          return wire;
        }),
      frame.map(({ wire }) => wire),
    ),
    { maxLength: 8 },
  )
  .map((parts) => Buffer.concat(parts));

function decode(pieces: readonly Buffer[]): RecordedFrame[] {
  const recorder = new FrameRecorder();
  const decoder = new FrameDecoder(recorder);
  for (const piece of pieces) decoder.feed(piece);
  assert.equal(recorder.isIncomplete, false);
  return recorder.frames;
}

/** What hostile input leads to: the frames before the fault, and whether there was one. */
function outcome(pieces: readonly Buffer[]): { frames: readonly RecordedFrame[]; failed: boolean } {
  const recorder = new FrameRecorder();
  const decoder = new FrameDecoder(recorder);
  let failed = false;
  for (const piece of pieces) {
    const before = recorder.frames.length;
    try {
      decoder.feed(piece);
    } catch (error) {
      assert.ok(error instanceof CulvertError && error.code === 'invalid_frame', String(error));
      assert.equal(failed, false, 'a stopped decoder threw again');
      failed = true;
      continue;
    }
    if (failed) assert.equal(recorder.frames.length, before, 'a stopped decoder went on');
  }
  return { frames: recorder.frames, failed };
}

function split(input: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (input.length + 1)))].toSorted((a, b) => a - b);
  return [0, ...at].map((from, i) => input.subarray(from, at[i]));
}

function number(text: string | undefined): number {
  return Number((text ?? '').replaceAll(',', ''));
}

/** The value that a source file gives a constant, or the default that it gives an option. */
function constant(file: string, name: string): number {
  const source = readFileSync(new URL(file, import.meta.url), 'utf8');
  const found = new RegExp(`\\b${name}(?: =| \\?\\?) ([\\dxa-f_ *]+)[;,]`).exec(source)?.[1];
  assert.ok(found !== undefined, `${file} has no ${name}`);
  return found.split('*').reduce((product, factor) => product * Number(factor.replaceAll('_', '').trim()), 1);
}
