import { CulvertError, ERROR_CODES, type ErrorCode } from '../errors/codes.ts';
import type { ByteBudget } from './budget.ts';
import {
  BULK_DATA_BYTES,
  encodeFrame,
  FAIR_DATA_BYTES,
  Flag,
  FRAME_HEADER_BYTES,
  FrameType,
  HEAD_PREFIX_BYTES,
  INITIAL_WINDOW,
} from './frame.ts';
import { encodeResponseHead, encodeTrailers, type FlatHeaders, MAX_HEAD_BYTES, type ResponseHead } from './heads.ts';
import type { Outbound, Turn } from './outbound.ts';
import { ReceiveWindow } from './receive-window.ts';
import { nextStreamState, type StreamState } from './states.ts';
import type { Stream, StreamSink } from './stream-types.ts';

/** Above this many unsent bytes `write` asks its caller to wait, bytes. */
const HIGH_WATER = 64 * 1024;
/** Below this many unsent bytes the caller is told to go on, bytes. */
const LOW_WATER = 16 * 1024;
/** Interim heads (1xx) that one stream may carry; a service has no honest use for more. */
const MAX_INTERIM_HEADS = 32;
/** Longest text in a Close Stream frame, bytes. */
const MAX_RESET_MESSAGE = 512;

/** What a stream needs of its session. */
export interface StreamHost {
  readonly outbound: Outbound;
  readonly budget: ByteBudget;
  /** Milliseconds. */
  readonly roundTrip: number;
  /** Milliseconds, monotonic. */
  now(): number;
  forget(stream: SessionStream): void;
}

interface QueuedHead {
  readonly type: number;
  readonly text: string;
  readonly flags: number;
}

/** One end of a stream: state, credit both ways, and what waits to be sent. */
export class SessionStream implements Stream, Turn {
  readonly id: number;
  readonly #host: StreamHost;
  readonly #window: ReceiveWindow;
  #sink: StreamSink | undefined;
  #state: StreamState = 'open';
  #credit = INITIAL_WINDOW;
  /** Heads and body chunks in order; the first chunk may be sent in part. */
  #queue: (QueuedHead | Buffer)[] = [];
  #queueOffset = 0;
  #queuedBytes = 0;
  #endQueued = false;
  #inRing = false;
  #callerWaits = false;
  /** How the stream ended, when nobody was there to be told. */
  #outcome: { readonly code: ErrorCode | undefined; readonly message: string } | undefined;
  #interimHeads = 0;
  #gotFinalHead = false;
  /** `finish` was called before the end of the answer could be sent. */
  #finishing = false;
  /** The peer has not heard of this stream yet: a reset says nothing to it. */
  #openQueued = false;

  constructor(id: number, host: StreamHost) {
    this.id = id;
    this.#host = host;
    this.#window = new ReceiveWindow(host.budget);
  }

  get isOpen(): boolean {
    return this.#state !== 'closed';
  }

  get sentEnd(): boolean {
    return this.#endQueued || this.#state === 'half-closed-local' || this.#state === 'closed';
  }

  get receivedEnd(): boolean {
    return this.#state === 'half-closed-remote' || this.#state === 'closed';
  }

  /** Bytes received and not passed on yet. */
  get held(): number {
    return this.#window.held;
  }

  /** Names who receives the rest; a stream that is over by then tells so at once. */
  attach(sink: StreamSink): void {
    if (this.#outcome === undefined) this.#sink = sink;
    else sink.onClose(this.#outcome.code, this.#outcome.message);
  }

  // ---- sending

  sendHead(head: ResponseHead, body: Buffer | undefined, end: boolean): boolean {
    if (this.sentEnd) return true;
    const text = encodeResponseHead(head);
    if (text.length > MAX_HEAD_BYTES) {
      this.reset('bad_response', `the response head has ${text.length} bytes, above ${MAX_HEAD_BYTES}`);
      return true;
    }
    return this.sendEncodedHead(FrameType.Data, Flag.Head, text, body, end);
  }

  /** Sends a head that is encoded already, in one frame with its body where credit and socket allow. */
  sendEncodedHead(type: number, flags: number, text: string, body: Buffer | undefined, end: boolean): boolean {
    const bodyBytes = body === undefined ? 0 : body.length;
    const frameBytes = FRAME_HEADER_BYTES + HEAD_PREFIX_BYTES + text.length + bodyBytes;
    const outbound = this.#host.outbound;
    if (
      this.#queue.length === 0 &&
      bodyBytes <= FAIR_DATA_BYTES &&
      bodyBytes <= this.#credit &&
      outbound.hasRoom(frameBytes)
    ) {
      this.#credit -= bodyBytes;
      outbound.headFrame(type, end ? flags | Flag.EndStream : flags, this.id, text, body);
      if (end) this.#sent();
      return true;
    }
    if (type === FrameType.OpenStream) this.#openQueued = true;
    this.#queue.push({ type, text, flags: end && bodyBytes === 0 ? flags | Flag.EndStream : flags });
    if (body !== undefined && bodyBytes > 0) {
      this.#queue.push(body);
      this.#queuedBytes += bodyBytes;
    }
    if (end) this.#endQueued = true;
    this.#join();
    return this.#askToWait();
  }

  write(chunk: Buffer, end: boolean): boolean {
    if (this.sentEnd) return true;
    const outbound = this.#host.outbound;
    const bytes = chunk.length;
    if (
      this.#queue.length === 0 &&
      bytes <= FAIR_DATA_BYTES &&
      bytes <= this.#credit &&
      outbound.hasRoom(FRAME_HEADER_BYTES + bytes)
    ) {
      if (bytes === 0 && !end) return true;
      this.#credit -= bytes;
      outbound.frame(FrameType.Data, end ? Flag.EndStream : 0, this.id, chunk, 0, bytes);
      if (end) this.#sent();
      return true;
    }
    if (bytes > 0) {
      this.#queue.push(chunk);
      this.#queuedBytes += bytes;
    }
    if (end) this.#endQueued = true;
    this.#join();
    return this.#askToWait();
  }

  end(): void {
    this.write(Buffer.alloc(0), true);
  }

  sendTrailers(headers: FlatHeaders): void {
    if (this.sentEnd) return;
    const text = encodeTrailers(headers);
    if (text.length > MAX_HEAD_BYTES) {
      this.reset('bad_response', `the trailers have ${text.length} bytes, above ${MAX_HEAD_BYTES}`);
      return;
    }
    this.sendEncodedHead(FrameType.Data, Flag.Head | Flag.Trailers, text, undefined, true);
  }

  finish(): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'half-closed-local') {
      this.#host.outbound.control(encodeFrame(FrameType.CloseStream, 0, this.id, ''));
      this.#close(undefined, '');
    } else {
      // The end of the answer still waits for credit; the close follows it.
      this.#finishing = true;
    }
  }

  reset(code: ErrorCode, message = ''): void {
    if (this.#state === 'closed') return;
    if (!this.#openQueued) {
      this.#host.outbound.control(encodeFrame(FrameType.CloseStream, Flag.Reset, this.id, encodeReset(code, message)));
    }
    this.#close(code, message);
  }

  /** Outbound: this stream's turn. Sends one head or one Data frame. */
  takeTurn(alone: boolean): boolean {
    this.#inRing = false;
    if (this.#state === 'closed') return false;
    const first = this.#queue[0];
    if (first === undefined) {
      if (this.#endQueued) this.#sendBareEnd();
    } else if (Buffer.isBuffer(first)) {
      this.#sendPiece(first, alone ? BULK_DATA_BYTES : FAIR_DATA_BYTES);
    } else {
      this.#queue.shift();
      this.#openQueued = false;
      this.#host.outbound.headFrame(first.type, first.flags, this.id, first.text, undefined);
      if ((first.flags & Flag.EndStream) !== 0) this.#sent();
    }
    if (this.#callerWaits && this.#queuedBytes <= LOW_WATER && this.isOpen) {
      this.#callerWaits = false;
      this.#sink?.onWritable();
    }
    // A write during `onWritable` may have put the stream back already.
    if (this.#inRing || !this.#canSend()) return false;
    this.#inRing = true;
    return true;
  }

  #sendPiece(first: Buffer, most: number): void {
    const bytes = Math.min(most, this.#credit, first.length - this.#queueOffset);
    const from = this.#queueOffset;
    this.#queueOffset += bytes;
    this.#queuedBytes -= bytes;
    this.#credit -= bytes;
    if (this.#queueOffset === first.length) {
      this.#queue.shift();
      this.#queueOffset = 0;
    }
    const last = this.#endQueued && this.#queue.length === 0;
    this.#host.outbound.frame(FrameType.Data, last ? Flag.EndStream : 0, this.id, first, from, from + bytes);
    if (last) this.#sent();
  }

  #sendBareEnd(): void {
    this.#host.outbound.frame(FrameType.Data, Flag.EndStream, this.id, undefined, 0, 0);
    this.#sent();
  }

  #canSend(): boolean {
    if (this.#state === 'closed' || this.#state === 'half-closed-local') return false;
    const first = this.#queue[0];
    if (first === undefined) return this.#endQueued;
    return !Buffer.isBuffer(first) || this.#credit > 0;
  }

  #join(): void {
    if (this.#inRing || !this.#canSend()) return;
    this.#inRing = true;
    this.#host.outbound.enqueue(this);
  }

  #askToWait(): boolean {
    if (this.#queuedBytes < HIGH_WATER) return true;
    this.#callerWaits = true;
    return false;
  }

  #sent(): void {
    this.#endQueued = true;
    this.#advance('send-end');
    if (this.#finishing && this.isOpen) this.finish();
  }

  // ---- receiving, called by the session

  /** A response head (opener side). */
  receiveHead(head: ResponseHead, body: Buffer, end: boolean): void {
    if (this.receivedEnd || this.#gotFinalHead) {
      this.reset('invalid_frame', 'a head came after the final head');
      return;
    }
    if (head.status < 200 && head.status !== 101) {
      this.#interimHeads += 1;
      if (this.#interimHeads > MAX_INTERIM_HEADS || end || body.length > 0) {
        this.reset('invalid_frame', 'too many interim heads, or one with a body');
        return;
      }
    } else {
      this.#gotFinalHead = true;
    }
    if (!this.#take(body.length)) return;
    this.#sink?.onHead(head, body.length === 0 ? undefined : body, end);
    if (end) this.#advance('receive-end');
  }

  receiveData(chunk: Buffer, end: boolean): void {
    if (this.receivedEnd) {
      this.reset('invalid_frame', 'data came after the end of the stream');
      return;
    }
    if (!this.#take(chunk.length)) return;
    this.#sink?.onData(chunk, end);
    if (end) this.#advance('receive-end');
  }

  receiveTrailers(headers: FlatHeaders): void {
    if (this.receivedEnd) {
      this.reset('invalid_frame', 'trailers came after the end of the stream');
      return;
    }
    this.#sink?.onTrailers(headers);
    this.#advance('receive-end');
  }

  /** Acceptor: the body that came with Open Stream counts against the credit like any other. */
  receiveFirst(bytes: number, end: boolean): boolean {
    if (!this.#take(bytes)) return false;
    if (end) this.#advance('receive-end');
    return true;
  }

  receiveCredit(bytes: number): void {
    this.#credit += bytes;
    if (this.#credit > 0x7fff_ffff) {
      this.reset('flow_control_error', 'the window is larger than 2^31-1');
      return;
    }
    this.#join();
  }

  /** The peer closed the stream, cleanly (`code` undefined) or not. */
  receiveClose(code: ErrorCode | undefined, message: string): void {
    if (code === undefined && !this.receivedEnd) this.#sink?.onData(Buffer.alloc(0), true);
    this.#close(code, message);
  }

  /** The session ended under the stream. */
  sessionLost(code: ErrorCode, message: string): void {
    this.#close(code, message);
  }

  consumed(bytes: number): void {
    if (this.#state === 'closed') return;
    const host = this.#host;
    const grant = this.#window.consume(bytes, host.now(), host.roundTrip);
    if (grant === 0 || this.receivedEnd) return;
    const payload = Buffer.allocUnsafe(4);
    payload.writeUInt32BE(grant, 0);
    host.outbound.control(encodeFrame(FrameType.WindowUpdate, 0, this.id, payload));
  }

  #take(bytes: number): boolean {
    if (bytes === 0) return true;
    if (!this.#window.receive(bytes)) {
      this.reset('flow_control_error', 'data beyond the credit');
      return false;
    }
    if (!this.#host.budget.hold(bytes)) this.#host.budget.relieve();
    return this.isOpen;
  }

  #advance(event: 'send-end' | 'receive-end'): void {
    const next = nextStreamState(this.#state, event);
    if (next === undefined) {
      if (this.#state !== 'closed') throw new CulvertError('internal_error', `${event} in state ${this.#state}`);
      return;
    }
    if (next === 'closed') this.#close(undefined, '');
    else this.#state = next;
  }

  #close(code: ErrorCode | undefined, message: string): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#window.dispose();
    this.#queue = [];
    this.#queuedBytes = 0;
    if (this.#inRing) this.#host.outbound.remove(this);
    this.#host.forget(this);
    const sink = this.#sink;
    this.#sink = undefined;
    if (sink === undefined) this.#outcome = { code, message };
    else sink.onClose(code, message);
  }
}

/** Payload of Close Stream with RESET: the code's wire number as u16, then text for people. */
export function encodeReset(code: ErrorCode, message: string): Buffer {
  const text = Buffer.from(message, 'utf8').subarray(0, MAX_RESET_MESSAGE);
  const payload = Buffer.allocUnsafe(2 + text.length);
  payload.writeUInt16BE(ERROR_CODES[code].wire, 0);
  text.copy(payload, 2);
  return payload;
}
