import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { z } from 'zod';
import { CulvertError, ERROR_CODES, isErrorCode } from '../errors/codes.ts';
import { RecordingSink, socketPair } from '../testkit/session-pair.ts';
import { FrameDecoder } from './decoder.ts';
import { encodeFrame, Flag, FrameType } from './frame.ts';
import {
  decodeRequestHead,
  decodeResponseHead,
  decodeTrailers,
  encodeRequestHead,
  encodeResponseHead,
  encodeTrailers,
} from './heads.ts';
import {
  AuthRequest,
  AuthResponse,
  ErrorMessage,
  GoAway,
  parseMessage,
  TunnelRequest,
  TunnelResponse,
} from './messages.ts';
import { Outbound } from './outbound.ts';
import { Session } from './session.ts';
import { encodeReset } from './session-stream.ts';
import { CaptureSocket } from './vectors/capture-socket.ts';
import { FrameRecorder, type RecordedFrame } from './vectors/frame-recorder.ts';
import { EXCHANGE, EXTENSIONS, FAULTS, FRAMES, type FrameVector } from './vectors/load.ts';
import { playExchange } from './vectors/play-exchange.ts';
import { section } from './vectors/spec.ts';

type Meaning = FrameVector['frame'];

const TYPES = new Map<string, number>(Object.entries(FrameType));
const FLAGS = {
  ACK: Flag.Ack,
  END_STREAM: Flag.EndStream,
  RESET: Flag.Reset,
  HEAD: Flag.Head,
  TRAILERS: Flag.Trailers,
  CALL: Flag.Call,
} as const;

describe('golden vectors', () => {
  test('have a name of their own each, and at least one for every type of frame', () => {
    const names = [...FRAMES, ...EXTENSIONS, ...FAULTS].map(({ name }) => name);
    assert.deepEqual(names.toSorted(), [...new Set(names)].toSorted());
    assert.deepEqual(new Set(FRAMES.map(({ frame }) => frame.type)), new Set(TYPES.keys()));
  });

  for (const { name, description, hex, chunks = [], frame } of FRAMES) {
    const bytes = Buffer.from(hex, 'hex');

    test(`${name} is decoded, however it is split: ${description}`, () => {
      const whole = decode([bytes]);
      assert.equal(whole.length, 1);
      assertMeans(whole[0], frame);
      assert.deepEqual(decode(cut(bytes, chunks)), whole);
      assert.deepEqual(decode([...bytes].map((byte) => Buffer.of(byte))), whole);
      for (let at = 1; at < bytes.length; at += 1) assert.deepEqual(decode(cut(bytes, [at])), whole, `split at ${at}`);
    });

    test(`${name} is encoded to the same bytes`, async () => {
      assert.equal((await encode(frame)).toString('hex'), hex);
    });
  }

  for (const { name, description, hex, frame } of EXTENSIONS) {
    test(`${name} is skipped between two other frames: ${description}`, () => {
      const heartbeat = encodeFrame(FrameType.Heartbeat, 0, 0, Buffer.alloc(8));
      const bytes = Buffer.from(hex, 'hex');
      assert.deepEqual([bytes[1], bytes[2], bytes.readUInt32BE(4)], [frame.type, frame.flagBits, frame.streamId]);
      const input = Buffer.concat([heartbeat, bytes, heartbeat]);
      for (let at = 1; at < input.length; at += 1) assert.equal(decode(cut(input, [at])).length, 2, `split at ${at}`);
    });
  }
});

describe('golden faults', () => {
  for (const fault of FAULTS) {
    const bytes = Buffer.from(fault.hex, 'hex');

    test(`${fault.name} is ${fault.code} of the ${fault.layer}: ${fault.description}`, async () => {
      assert.ok(isErrorCode(fault.code));
      if (fault.layer === 'framing') {
        for (const pieces of [[bytes], [...bytes].map((byte) => Buffer.of(byte))]) {
          const decoder = new FrameDecoder(new FrameRecorder());
          assert.throws(() => {
            for (const piece of pieces) decoder.feed(piece);
          }, isFault(fault.code));
        }
      }
      const role = fault.layer === 'framing' ? 'opener' : fault.role;
      const authenticated = fault.layer !== 'session' || fault.authenticated !== false;
      const { socket, session, sink, ended } = receiver(role, authenticated);
      socket.push(bytes);
      if (fault.layer === 'stream') {
        await turns(() => socket.frames.some(({ type }) => type === FrameType.CloseStream));
        const reset = socket.frames.find(({ type }) => type === FrameType.CloseStream);
        assert.deepEqual([reset?.flags, reset?.streamId], [Flag.Reset, 1000]);
        assert.equal(reset?.payload.readUInt16BE(0), ERROR_CODES[fault.code].wire);
        assert.equal(session.state, 'open');
        if (role === 'opener') assert.equal(sink.closed?.code, fault.code);
        session.close(undefined, 'the test is over');
      } else {
        await turns(() => ended.length > 0);
        assert.deepEqual(ended, [fault.code]);
        const last = socket.frames.at(-1);
        assert.deepEqual([last?.type, last?.streamId], [FrameType.Error, 0]);
        assert.equal(parseMessage('Error', ErrorMessage, last?.payload ?? Buffer.alloc(0)).code, fault.code);
        if (role === 'opener' && authenticated) assert.equal(sink.closed?.code, 'connection_closed');
      }
    });
  }
});

describe('the example exchange', () => {
  test('is what two sessions say to each other, byte for byte', async () => {
    const said = await playExchange(...(await socketPair()));
    for (const side of ['agent', 'core'] as const) {
      const expected = EXCHANGE.filter(({ from }) => from === side).map(({ hex }) => hex);
      assert.equal(said[side].toString('hex'), expected.join(''), side);
    }
  });

  test('stands in PROTOCOL.md with the same notes and bytes', () => {
    const [, block = ''] = section('Example exchange').split('```');
    const printed = block
      .trim()
      .split(/\n(?=\S| ?\S* →)/)
      .map((step) => {
        const [title = '', ...lines] = step.split('\n');
        return { title: title.trim(), hex: lines.join('').replaceAll(' ', '') };
      });
    const other = { agent: 'core', core: 'agent' } as const;
    assert.deepEqual(
      printed,
      EXCHANGE.map(({ from, note, hex }) => ({ title: `${from} → ${other[from]}: ${note}`, hex })),
    );
  });
});

function decode(pieces: readonly Buffer[]): RecordedFrame[] {
  const recorder = new FrameRecorder();
  const decoder = new FrameDecoder(recorder);
  for (const piece of pieces) decoder.feed(piece);
  assert.equal(recorder.isIncomplete, false);
  return recorder.frames;
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  return [0, ...at].map((from, i) => bytes.subarray(from, at[i]));
}

function flagBits(frame: Meaning): number {
  return frame.flags.reduce((bits, flag) => bits | FLAGS[flag], 0);
}

function assertMeans(decoded: RecordedFrame | undefined, frame: Meaning): void {
  assert.ok(decoded !== undefined);
  const { type, flags, streamId, head = '', payload } = decoded;
  assert.deepEqual([type, flags, streamId], [TYPES.get(frame.type), flagBits(frame), frame.streamId]);
  if ('request' in frame) {
    assert.deepEqual([decodeRequestHead(head), payload.toString('hex')], [frame.request, frame.body]);
  } else if ('response' in frame) {
    assert.deepEqual([decodeResponseHead(head), payload.toString('hex')], [frame.response, frame.body]);
  } else if ('trailers' in frame) assert.deepEqual([decodeTrailers(head), payload.length], [frame.trailers, 0]);
  else if ('json' in frame) assert.deepEqual(parseMessage(frame.type, schemaOf(frame), payload), frame.json);
  else if ('credit' in frame) assert.deepEqual([payload.length, payload.readUInt32BE(0)], [4, frame.credit]);
  else if ('payload' in frame) assert.equal(payload.toString('hex'), frame.payload);
  else assert.equal(payload.toString('hex'), closePayload(frame.close).toString('hex'));
}

async function encode(frame: Meaning): Promise<Buffer> {
  const type = TYPES.get(frame.type) ?? -1;
  const flags = flagBits(frame);
  if ('request' in frame) return written(type, flags, frame.streamId, encodeRequestHead(frame.request), frame.body);
  if ('response' in frame) return written(type, flags, frame.streamId, encodeResponseHead(frame.response), frame.body);
  if ('trailers' in frame) return written(type, flags, frame.streamId, encodeTrailers(frame.trailers), '');
  if ('payload' in frame) {
    const encoded = encodeFrame(type, flags, frame.streamId, Buffer.from(frame.payload, 'hex'));
    if (type === FrameType.Data) {
      assert.deepEqual(await written(type, flags, frame.streamId, undefined, frame.payload), encoded);
    }
    return encoded;
  }
  if ('json' in frame) return encodeFrame(type, flags, frame.streamId, JSON.stringify(frame.json));
  if ('close' in frame) return encodeFrame(type, flags, frame.streamId, closePayload(frame.close));
  const credit = Buffer.alloc(4);
  credit.writeUInt32BE(frame.credit);
  return encodeFrame(type, flags, frame.streamId, credit);
}

/** What the sending side of a session writes for it. */
async function written(
  type: number,
  flags: number,
  id: number,
  head: string | undefined,
  hex: string,
): Promise<Buffer> {
  const socket = new CaptureSocket();
  const outbound = new Outbound(socket, () => assert.fail('nothing piles up here'));
  const body = Buffer.from(hex, 'hex');
  if (head === undefined) outbound.frame(type, flags, id, body, 0, body.length);
  else outbound.headFrame(type, flags, id, head, body.length === 0 ? undefined : body);
  await turns(() => socket.written.length > 0);
  return socket.written;
}

function closePayload(close: { code: string; message: string } | null): Buffer {
  if (close === null) return Buffer.alloc(0);
  assert.ok(isErrorCode(close.code));
  return encodeReset(close.code, close.message);
}

function schemaOf(frame: Meaning): z.ZodType {
  switch (TYPES.get(frame.type)) {
    case FrameType.AuthRequest:
      return AuthRequest;
    case FrameType.AuthResponse:
      return AuthResponse;
    case FrameType.GoAway:
      return GoAway;
    case FrameType.Error:
      return ErrorMessage;
    default:
      return frame.flags.includes('ACK') ? TunnelResponse : TunnelRequest;
  }
}

function isFault(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CulvertError && error.code === code;
}

function receiver(role: 'opener' | 'acceptor', authenticated: boolean) {
  const socket = new CaptureSocket();
  const ended: (string | undefined)[] = [];
  const session = new Session(
    socket,
    {
      onControl: () => assert.fail('no message of the handshake is expected'),
      onStream: () => new RecordingSink(),
      onGoAway: () => {},
      onClosed: (code) => ended.push(code),
    },
    { role },
  );
  const sink = new RecordingSink();
  if (authenticated) session.authenticated();
  if (authenticated && role === 'opener') {
    session.open({ method: 'POST', target: '/', tunnel: 'demo', meta: '', headers: [] }, undefined, false, sink);
  }
  return { socket, session, sink, ended };
}

/** Resolves once the condition holds; fails when it does not within as many turns of the event loop as nothing needs. */
async function turns(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100 && !condition(); turn += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(condition(), 'nothing happened');
}
