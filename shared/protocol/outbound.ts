import type { Duplex } from 'node:stream';
import { FRAME_HEADER_BYTES, HEAD_PREFIX_BYTES, writeFrameHeader } from './frame.ts';

/** The buffer that frames are written into starts at this size and doubles up to the largest, bytes. */
const FIRST_SLAB_BYTES = 32 * 1024;
const LARGEST_SLAB_BYTES = 256 * 1024;
/** Most bytes that one flush hands to the socket, so that what was queued later is not far behind. */
const BATCH_BYTES = 128 * 1024;
/** What a queued frame costs besides its bytes: the Buffer object and its place (measured on V8). */
const QUEUED_OVERHEAD = 128;
/** Turns in a row that fresh streams may take while others wait in the ring. */
const MAX_FRESH_TURNS = 32;
/** A peer that does not read while this much control data piles up is not worth keeping, bytes. */
const MAX_CONTROL_BACKLOG = 1024 * 1024;

/** Something with queued bytes that takes its turn, one frame at a time. */
export interface Turn {
  /** Writes at most one frame. Returns true when there is more that could be written now. */
  takeTurn(alone: boolean): boolean;
}

/**
 * The sending side of a session: gathers the frames of one turn of the event loop into one socket write.
 *
 * Frames go straight into the batch while the socket takes everything; a TLS socket would copy a vector of buffers into
 * one anyway, so this is its only copy in JavaScript. Once the socket pushes back, streams wait in a ring and are served
 * round robin after each drain, so a bulk transfer has at most one batch queued in front of anybody else's frame. A stream
 * that had nothing to send before gets its first turn ahead of the ring, so that a small answer passes hundreds of bulk
 * transfers (the new flows of FQ-CoDel, RFC 8290 section 4.2).
 */
export class Outbound {
  readonly #socket: Duplex;
  readonly #onOverflow: () => void;
  #slab = Buffer.allocUnsafeSlow(FIRST_SLAB_BYTES);
  #start = 0;
  #fill = 0;
  /** Streams that wait for their first turn since they had nothing to send; they go before the ring. */
  #fresh: Turn[] = [];
  #freshTurns = 0;
  #ring: Turn[] = [];
  #backlog: Buffer[] = [];
  #backlogBytes = 0;
  #congested = false;
  #scheduled = false;
  #closed = false;
  #overflown = false;
  readonly #flush = (): void => this.flush();

  /** @param onOverflow called when the peer lets control frames pile up: the session has to end */
  constructor(socket: Duplex, onOverflow: () => void) {
    this.#socket = socket;
    this.#onOverflow = onOverflow;
    socket.on('drain', () => {
      this.#congested = false;
      this.flush();
    });
  }

  /** True when a frame of this size may be written directly, in front of nobody. */
  hasRoom(frameBytes: number): boolean {
    return (
      !this.#congested &&
      this.#ring.length === 0 &&
      this.#fresh.length === 0 &&
      this.#backlog.length === 0 &&
      this.#fill - this.#start + frameBytes <= BATCH_BYTES
    );
  }

  /** Writes a control frame ahead of all streams. */
  control(frame: Buffer): void {
    if (this.#closed) return;
    if (!this.#congested && this.#backlog.length === 0 && this.#fill - this.#start + frame.length <= BATCH_BYTES) {
      this.#reserve(frame.length);
      this.#fill += frame.copy(this.#slab, this.#fill);
      this.#schedule();
      return;
    }
    this.#backlog.push(frame);
    this.#backlogBytes += frame.length + QUEUED_OVERHEAD;
    if (this.#backlogBytes > MAX_CONTROL_BACKLOG) {
      if (this.#overflown) return;
      this.#overflown = true;
      this.#onOverflow();
    } else this.#schedule();
  }

  /** Writes a frame without a head. The caller asked `hasRoom`, or has its turn. */
  frame(type: number, flags: number, streamId: number, payload: Buffer | undefined, from: number, to: number): void {
    const length = to - from;
    this.#reserve(FRAME_HEADER_BYTES + length);
    writeFrameHeader(this.#slab, this.#fill, type, flags, streamId, length);
    this.#fill += FRAME_HEADER_BYTES;
    if (payload !== undefined && length > 0) {
      payload.copy(this.#slab, this.#fill, from, to);
      this.#fill += length;
    }
    this.#schedule();
  }

  /** Writes a frame with a head and the body bytes that follow it. The caller asked `hasRoom`, or has its turn. */
  headFrame(type: number, flags: number, streamId: number, head: string, body: Buffer | undefined): void {
    const bodyLength = body === undefined ? 0 : body.length;
    this.#reserve(FRAME_HEADER_BYTES + HEAD_PREFIX_BYTES + head.length + bodyLength);
    const slab = this.#slab;
    let at = this.#fill;
    writeFrameHeader(slab, at, type, flags, streamId, HEAD_PREFIX_BYTES + head.length + bodyLength);
    at += FRAME_HEADER_BYTES;
    slab.writeUInt32BE(head.length, at);
    at += HEAD_PREFIX_BYTES;
    slab.write(head, at, head.length, 'latin1');
    at += head.length;
    if (body !== undefined) at += body.copy(slab, at);
    this.#fill = at;
    this.#schedule();
  }

  /** Lets a stream wait for its turn. It stands there once. */
  enqueue(turn: Turn): void {
    this.#fresh.push(turn);
    if (!this.#congested) this.#schedule();
  }

  remove(turn: Turn): void {
    for (const queue of [this.#fresh, this.#ring]) {
      const at = queue.indexOf(turn);
      if (at >= 0) queue.splice(at, 1);
    }
  }

  /** Writes what is gathered and gives the waiting streams their turns until the socket pushes back. */
  flush(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    while (!this.#congested) {
      this.#takeBacklog();
      this.#takeTurns();
      if (this.#fill === this.#start) return;
      this.#writeOut();
      if (this.#ring.length === 0 && this.#fresh.length === 0 && this.#backlog.length === 0) return;
    }
  }

  /** Writes what is gathered, then drops everything else. */
  close(): void {
    if (this.#closed) return;
    if (this.#fill > this.#start) this.#writeOut();
    if (this.#backlog.length > 0) this.#socket.write(Buffer.concat(this.#backlog));
    this.#closed = true;
    this.#ring = [];
    this.#fresh = [];
    this.#backlog = [];
  }

  #takeBacklog(): void {
    while (this.#backlog.length > 0 && this.#fill - this.#start < BATCH_BYTES) {
      const frame = this.#backlog.shift();
      if (frame === undefined) break;
      this.#backlogBytes -= frame.length + QUEUED_OVERHEAD;
      this.#reserve(frame.length);
      this.#fill += frame.copy(this.#slab, this.#fill);
    }
  }

  #takeTurns(): void {
    while (this.#fill - this.#start < BATCH_BYTES) {
      const turn = this.#nextTurn();
      if (turn === undefined) break;
      if (turn.takeTurn(this.#ring.length === 0 && this.#fresh.length === 0)) this.#ring.push(turn);
    }
  }

  #nextTurn(): Turn | undefined {
    // However many streams are new, those in the ring go on.
    const isRingsTurn = this.#freshTurns >= MAX_FRESH_TURNS && this.#ring.length > 0;
    const turn = isRingsTurn ? undefined : this.#fresh.shift();
    this.#freshTurns = turn === undefined ? 0 : this.#freshTurns + 1;
    return turn ?? this.#ring.shift();
  }

  /** Makes room for `bytes` in one piece behind what is gathered. */
  #reserve(bytes: number): void {
    // Once the socket has passed on all it was given, nobody reads the slab any more and it can be filled from the front.
    if (this.#fill === this.#start && this.#start > 0 && this.#socket.writableLength === 0) {
      this.#start = 0;
      this.#fill = 0;
    }
    if (this.#fill + bytes <= this.#slab.length) return;
    if (this.#fill > this.#start) this.#writeOut();
    this.#slab = Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(this.#slab.length * 2, LARGEST_SLAB_BYTES)));
    this.#start = 0;
    this.#fill = 0;
  }

  #writeOut(): void {
    const batch = this.#slab.subarray(this.#start, this.#fill);
    this.#start = this.#fill;
    if (!this.#socket.write(batch)) this.#congested = true;
  }

  #schedule(): void {
    if (this.#scheduled || this.#congested) return;
    this.#scheduled = true;
    // After all sockets that are readable in this turn of the loop, so that their frames share one write.
    setImmediate(this.#flush);
  }
}
