import { performance } from 'node:perf_hooks';
import type { Duplex } from 'node:stream';
import { CulvertError, codeFromWire, type ErrorCode, isErrorCode } from '../errors/codes.ts';
import { ByteBudget } from './budget.ts';
import { FrameDecoder, type FrameHandler } from './decoder.ts';
import { encodeFrame, FIRST_STREAM_ID, Flag, FrameType, LAST_STREAM_ID } from './frame.ts';
import {
  decodeRequestHead,
  decodeResponseHead,
  decodeTrailers,
  encodeRequestHead,
  MAX_HEAD_BYTES,
  type RequestHead,
} from './heads.ts';
import { HEARTBEAT_BYTES, Liveness, type LivenessOptions } from './liveness.ts';
import { ErrorMessage, GoAway, parseMessage } from './messages.ts';
import { Outbound } from './outbound.ts';
import { SessionStream, type StreamHost } from './session-stream.ts';
import { nextSessionState, type SessionEvent, type SessionState } from './states.ts';
import type { Stream, StreamSink, Upstream } from './stream-types.ts';

/** What happens on a session besides its streams. Methods must not throw. */
export interface SessionHandler {
  /** A JSON frame on stream 0: authentication, register, unregister. Throwing CulvertError `invalid_frame` ends the session. */
  onControl(type: number, flags: number, payload: Buffer): void;
  /** Acceptor: the peer opened a stream. Returns who receives the rest of it. */
  onStream(stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean): StreamSink;
  /** Acceptor: the same for a call to this side itself (Flag.Call). Without it calls are refused. */
  onCall?(stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean): StreamSink;
  /** The peer asks to be replaced and closes later. */
  onGoAway(message: GoAway): void;
  /** Opener: three quarters of the stream ids are used, time to have the session replaced. Once. */
  onNearlyUsedUp?(): void;
  /** The session is over; all its streams have been told. `code` is undefined for an ordinary close. */
  onClosed(code: ErrorCode | undefined, message: string): void;
}

export interface SessionOptions extends LivenessOptions {
  /** Openers start streams: the core, or the node that dialled a relay link. */
  readonly role: 'opener' | 'acceptor';
  /** Streams open at once. Default 4,096. */
  readonly maxStreams?: number;
  /** Received bytes that the session may hold. Default 64 MiB of its own. */
  readonly budget?: ByteBudget;
  /** Last id that is used before the session counts as used up. Default LAST_STREAM_ID. */
  readonly lastStreamId?: number;
}

const DEFAULT_BUDGET = 64 * 1024 * 1024;
/** Heartbeats that a peer may send before it is let in. */
const MAX_EARLY_HEARTBEATS = 8;
/**
 * Payload of the heartbeat behind a Go Away: its echo says that the peer has read the Go Away, and that every stream which it
 * opened before has arrived. Liveness begins its payloads with four zero bytes.
 */
const LAST_CALL = Buffer.from('go away!', 'latin1');
/** Ended peers get this long to take the last frame before the socket is destroyed, milliseconds. */
const CLOSE_GRACE = 1000;

/**
 * One connection that carries streams: frames in and out, heartbeats, credit, and the session's state. Knows nothing of
 * agents, tunnels or HTTP; a relay link is a session too.
 */
export class Session implements Upstream, StreamHost, FrameHandler {
  readonly outbound: Outbound;
  readonly budget: ByteBudget;
  readonly #socket: Duplex;
  readonly #handler: SessionHandler;
  readonly #isOpener: boolean;
  readonly #maxStreams: number;
  readonly #lastUsableId: number;
  /** The id whose use calls for a replacement. */
  readonly #replaceAt: number;
  readonly #decoder: FrameDecoder;
  readonly #liveness: Liveness;
  readonly #streams = new Map<number, SessionStream>();
  readonly #timer: NodeJS.Timeout;
  #state: SessionState = 'handshake';
  #nextId = FIRST_STREAM_ID;
  #lastPeerId = 0;
  #now: number;
  #inFeed = false;
  #earlyHeartbeats = 0;
  #goingAway: NodeJS.Timeout | undefined;
  /** Going away, but still taking new streams until the replacement is there. */
  #keepsServing = false;
  /** The peer knows that this side goes away: what it opens from now on is refused. */
  #peerKnows = false;

  constructor(socket: Duplex, handler: SessionHandler, options: SessionOptions) {
    this.#socket = socket;
    this.#handler = handler;
    this.#isOpener = options.role === 'opener';
    this.#maxStreams = options.maxStreams ?? 4096;
    this.#lastUsableId = options.lastStreamId ?? LAST_STREAM_ID;
    this.#replaceAt = FIRST_STREAM_ID + 2 * Math.floor((3 * (this.#lastUsableId - FIRST_STREAM_ID)) / 8);
    this.budget = options.budget ?? new ByteBudget(DEFAULT_BUDGET);
    this.budget.onShed = () => this.#shed();
    this.#now = performance.now();
    this.outbound = new Outbound(socket, () => this.close('overloaded', 'the peer does not read what it is sent'));
    this.#decoder = new FrameDecoder(this);
    this.#liveness = new Liveness((payload) => this.#sendHeartbeat(0, payload), options);
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('end', () => this.#ended(undefined, 'the peer closed the connection'));
    socket.on('error', (error: Error) => this.#ended('connection_closed', error.message));
    socket.on('close', () => this.#ended(undefined, 'the connection was closed'));
    this.#timer = setInterval(() => this.#checkLiveness(), this.#liveness.checkInterval);
    this.#timer.unref();
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Milliseconds, from the last heartbeat; 1 before the first. */
  get roundTrip(): number {
    return this.#liveness.roundTrip;
  }

  /** As `roundTrip`; undefined before the first heartbeat was answered. */
  get measuredRoundTrip(): number | undefined {
    return this.#liveness.isMeasured ? this.#liveness.roundTrip : undefined;
  }

  get load(): number {
    return this.#streams.size;
  }

  /** Streams that this side has opened so far. */
  get opened(): number {
    return (this.#nextId - FIRST_STREAM_ID) / 2;
  }

  /** Bytes that this session holds, received and not passed on. */
  get held(): number {
    return this.budget.used;
  }

  /** True while new streams may be opened and nothing suggests that the peer is gone. */
  get available(): boolean {
    return this.#state === 'open' && this.#nextId <= this.#lastUsableId && !this.#liveness.isSuspect;
  }

  now(): number {
    // One clock read for all that a chunk of input causes.
    return this.#inFeed ? this.#now : performance.now();
  }

  /** Authentication is done: streams may be opened. */
  authenticated(): void {
    this.#move('authenticated');
    this.#liveness.beat();
  }

  /** @param interval milliseconds between heartbeats  @param deadAfter milliseconds of silence that end the session */
  setHeartbeat(interval: number, deadAfter: number): void {
    this.#liveness.setIntervals(interval, deadAfter);
  }

  open(head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream {
    return this.#open(0, head, body, end, sink);
  }

  /** As `open`, for a call to the peer itself (PROTOCOL.md section 14). */
  openCall(head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream {
    return this.#open(Flag.Call, head, body, end, sink);
  }

  #open(flags: number, head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream {
    if (this.#state !== 'open' && !this.#keepsServing)
      throw new CulvertError('not_processed', `the session is ${this.#state}`);
    if (this.#nextId > this.#lastUsableId)
      throw new CulvertError('not_processed', 'the session has used up its stream ids');
    if (this.#streams.size >= this.#maxStreams || this.budget.isOver) {
      throw new CulvertError('overloaded', `the session carries ${this.#streams.size} streams, its limit`);
    }
    const text = encodeRequestHead(head);
    if (text.length > MAX_HEAD_BYTES) {
      throw new CulvertError('headers_too_large', `the request head has ${text.length} bytes, above ${MAX_HEAD_BYTES}`);
    }
    const id = this.#nextId;
    this.#nextId += 2;
    const stream = new SessionStream(id, this);
    stream.attach(sink);
    this.#streams.set(id, stream);
    stream.sendEncodedHead(FrameType.OpenStream, flags, text, body, end);
    this.#liveness.probeAfterSilence(this.now());
    if (id === this.#replaceAt) this.#handler.onNearlyUsedUp?.();
    return stream;
  }

  /** Sends a JSON frame on stream 0. */
  send(type: number, flags: number, message: object): void {
    this.outbound.control(encodeFrame(type, flags, 0, JSON.stringify(message)));
  }

  /**
   * Asks the peer to replace this session; open streams go on until the deadline, then the session closes. The first call
   * counts.
   * @param deadline milliseconds
   * @param keepServing true: new streams are still opened, for when nothing else could serve them yet, and the session waits
   * for the peer to close it. Default false: no new streams but those that the peer opened before it knew, and the session
   * closes as soon as the last one is done.
   */
  goAway(reason: string, deadline: number, extra: Partial<GoAway> = {}, keepServing = false): void {
    if (this.#state === 'closed' || this.#goingAway !== undefined) return;
    if (this.#state === 'handshake') {
      this.close('node_draining', reason);
      return;
    }
    this.#move('go-away');
    // Streams that are on their way here are served too (the two steps of RFC 9113 section 6.8, without the second frame).
    const lastId = this.#isOpener ? Math.max(0, this.#nextId - 2) : LAST_STREAM_ID;
    this.send(FrameType.GoAway, 0, { reason, last_stream_id: lastId, deadline_ms: deadline, ...extra });
    this.#peerKnows = this.#isOpener;
    if (!this.#isOpener) this.#sendHeartbeat(0, LAST_CALL);
    this.#goingAway = setTimeout(() => this.close(undefined, reason), deadline);
    this.#goingAway.unref();
    this.#keepsServing = keepServing;
    this.#closeWhenIdle();
  }

  /** Ends the session now. With a code the peer is told why. */
  close(code: ErrorCode | undefined, message: string): void {
    if (this.#state === 'closed') return;
    if (code !== undefined) this.send(FrameType.Error, 0, { code, message: message.slice(0, 1024) });
    this.#ended(code, message);
  }

  /** Makes room in the memory budget: resets the stream that holds most. */
  #shed(): void {
    let largest: SessionStream | undefined;
    for (const stream of this.#streams.values()) {
      if (largest === undefined || stream.held > largest.held) largest = stream;
    }
    largest?.reset('overloaded', 'the memory budget for received data is used up');
  }

  forget(stream: SessionStream): void {
    this.#streams.delete(stream.id);
    if (this.#goingAway !== undefined) this.#closeWhenIdle();
  }

  // ---- frames, called by the decoder

  onHead(type: number, flags: number, streamId: number, text: string, body: Buffer, complete: boolean): void {
    if (type === FrameType.OpenStream) {
      this.#acceptStream(flags, streamId, text, body, complete);
      return;
    }
    const stream = this.#find(streamId, 'Data');
    if (stream === undefined) return;
    const end = complete && (flags & Flag.EndStream) !== 0;
    try {
      if ((flags & Flag.Trailers) !== 0) {
        if ((flags & Flag.EndStream) === 0 || !complete || body.length > 0) {
          throw new CulvertError('invalid_frame', 'trailers must end the stream');
        }
        stream.receiveTrailers(decodeTrailers(text));
      } else if (this.#isOpener) {
        stream.receiveHead(decodeResponseHead(text), body, end);
      } else {
        throw new CulvertError('invalid_frame', 'a response head came from the side that asks');
      }
    } catch (error) {
      this.#resetFor(stream, error);
    }
  }

  onData(flags: number, streamId: number, chunk: Buffer, complete: boolean): void {
    const stream = this.#find(streamId, 'Data');
    stream?.receiveData(chunk, complete && (flags & Flag.EndStream) !== 0);
  }

  onControl(type: number, flags: number, streamId: number, payload: Buffer): void {
    switch (type) {
      case FrameType.Heartbeat:
        this.#onHeartbeat(flags, payload);
        break;
      case FrameType.CloseStream:
        this.#onCloseStream(flags, streamId, payload);
        break;
      case FrameType.WindowUpdate:
        this.#onWindowUpdate(streamId, payload);
        break;
      case FrameType.Error:
        this.#onError(streamId, payload);
        break;
      case FrameType.GoAway:
        this.#onGoAway(payload);
        break;
      default:
        if (streamId !== 0) {
          throw new CulvertError('invalid_frame', `a control frame stands on stream ${streamId}, not 0`);
        }
        this.#handler.onControl(type, flags, payload);
    }
  }

  #acceptStream(flags: number, streamId: number, text: string, body: Buffer, complete: boolean): void {
    if (this.#isOpener) throw unexpected('Open Stream');
    if (this.#state === 'handshake')
      throw new CulvertError('invalid_frame', 'a stream was opened before authentication');
    if (streamId <= this.#lastPeerId || streamId < FIRST_STREAM_ID || streamId % 2 !== 0) {
      throw new CulvertError('invalid_frame', `stream id ${streamId} is odd, reserved or not above the last one`);
    }
    this.#lastPeerId = streamId;
    const stream = new SessionStream(streamId, this);
    this.#streams.set(streamId, stream);
    const isLeaving = this.#goingAway !== undefined && this.#peerKnows;
    if (isLeaving || this.#streams.size > this.#maxStreams) {
      stream.reset('not_processed', 'no new streams are taken here');
      return;
    }
    const end = complete && (flags & Flag.EndStream) !== 0;
    try {
      const head = decodeRequestHead(text);
      if (!stream.receiveFirst(body.length, end)) return;
      const first = body.length === 0 ? undefined : body;
      if ((flags & Flag.Call) === 0) stream.attach(this.#handler.onStream(stream, head, first, end));
      else if (this.#handler.onCall !== undefined) stream.attach(this.#handler.onCall(stream, head, first, end));
      else throw new CulvertError('unsupported_protocol', 'calls are for relay links');
    } catch (error) {
      this.#resetFor(stream, error);
    }
  }

  #onHeartbeat(flags: number, payload: Buffer): void {
    if (payload.length !== HEARTBEAT_BYTES) {
      throw new CulvertError('invalid_frame', `a heartbeat has ${HEARTBEAT_BYTES} bytes of payload`);
    }
    if (this.#state === 'handshake') {
      this.#earlyHeartbeats += 1;
      if (this.#earlyHeartbeats > MAX_EARLY_HEARTBEATS) throw unexpected('another Heartbeat before authentication');
    }
    if ((flags & Flag.Ack) === 0) this.#sendHeartbeat(Flag.Ack, payload);
    else if (payload.equals(LAST_CALL)) this.#onLastCallHeard();
    else this.#liveness.acknowledged(payload);
  }

  #onLastCallHeard(): void {
    if (this.#goingAway === undefined) return;
    this.#peerKnows = true;
    this.#closeWhenIdle();
  }

  #sendHeartbeat(flags: number, payload: Buffer): void {
    this.outbound.control(encodeFrame(FrameType.Heartbeat, flags, 0, payload));
  }

  #onCloseStream(flags: number, streamId: number, payload: Buffer): void {
    const stream = this.#find(streamId, 'Close Stream');
    if (stream === undefined) return;
    if ((flags & Flag.Reset) === 0 && payload.length === 0) {
      stream.receiveClose(undefined, '');
    } else {
      const code = payload.length < 2 ? 'canceled' : codeFromWire(payload.readUInt16BE(0));
      stream.receiveClose(code, payload.toString('utf8', 2, 2 + 512));
    }
  }

  #onError(streamId: number, payload: Buffer): void {
    if (streamId !== 0)
      throw new CulvertError('invalid_frame', 'an Error frame names a stream; Close Stream resets one');
    const { code, message } = parseMessage('Error', ErrorMessage, payload);
    this.#ended(isErrorCode(code) ? code : 'internal_error', `the peer ended the session: ${message} (${code})`);
  }

  #onGoAway(payload: Buffer): void {
    if (this.#state === 'handshake') throw unexpected('Go Away');
    const message = parseMessage('Go Away', GoAway, payload);
    this.#move('go-away');
    this.#keepsServing = false;
    if (this.#isOpener) this.#refuseAbove(message.last_stream_id);
    this.#handler.onGoAway(message);
  }

  #onWindowUpdate(streamId: number, payload: Buffer): void {
    if (payload.length !== 4) throw new CulvertError('invalid_frame', 'a window update has 4 bytes of payload');
    this.#find(streamId, 'Window Update')?.receiveCredit(payload.readUInt32BE(0));
  }

  /** The stream, or undefined when it is closed here already: frames cross a reset on the wire. */
  #find(streamId: number, what: string): SessionStream | undefined {
    const stream = this.#streams.get(streamId);
    if (stream !== undefined) return stream;
    const opened = this.#isOpener ? streamId < this.#nextId : streamId <= this.#lastPeerId;
    if (!opened || streamId < FIRST_STREAM_ID || streamId % 2 !== 0) {
      throw new CulvertError('stream_not_found', `${what}: stream ${streamId} was never opened`);
    }
    return undefined;
  }

  #refuseAbove(lastId: number): void {
    for (const stream of [...this.#streams.values()]) {
      if (stream.id > lastId) stream.receiveClose('not_processed', 'the peer went away before it took the stream');
    }
  }

  #resetFor(stream: SessionStream, error: unknown): void {
    if (error instanceof CulvertError) stream.reset(error.code, error.message);
    else stream.reset('internal_error', error instanceof Error ? error.message : String(error));
  }

  // ---- life of the connection

  #receive(chunk: Buffer): void {
    if (this.#state === 'closed') return;
    this.#now = performance.now();
    this.#liveness.heard(this.#now);
    this.#inFeed = true;
    try {
      this.#decoder.feed(chunk);
    } catch (error) {
      if (error instanceof CulvertError) this.close(error.code, error.message);
      else this.close('internal_error', error instanceof Error ? error.message : String(error));
    } finally {
      this.#inFeed = false;
    }
  }

  #checkLiveness(): void {
    const silence = this.#liveness.check();
    if (silence > 0) this.close('timeout', `no traffic for ${Math.round(silence)} ms`);
  }

  #closeWhenIdle(): void {
    if (this.#streams.size === 0 && this.#peerKnows && !this.#keepsServing)
      this.close(undefined, 'all streams are done');
  }

  #move(event: SessionEvent): void {
    const next = nextSessionState(this.#state, event);
    if (next === undefined) throw new CulvertError('invalid_frame', `${event} in state ${this.#state}`);
    this.#state = next;
  }

  #ended(code: ErrorCode | undefined, message: string): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#keepsServing = false;
    clearInterval(this.#timer);
    clearTimeout(this.#goingAway);
    this.#decoder.stop();
    this.outbound.close();
    for (const stream of [...this.#streams.values()]) stream.sessionLost('connection_closed', message);
    this.#streams.clear();
    this.budget.dispose();
    this.#socket.end();
    setTimeout(() => this.#socket.destroy(), CLOSE_GRACE).unref();
    this.#handler.onClosed(code, message);
  }
}

function unexpected(what: string): CulvertError {
  return new CulvertError('invalid_frame', `${what} is not expected here`);
}
