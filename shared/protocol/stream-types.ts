import type { ErrorCode } from '../errors/codes.ts';
import type { FlatHeaders, RequestHead, ResponseHead } from './heads.ts';

/**
 * What the two ends of a stream see of it. The opener (core, or the dialling node of a relay link) sends a request head and
 * body and receives response heads, body and trailers; the acceptor (agent, or the other node) the reverse.
 */

/** Receives what arrives on a stream. Methods must not throw; calls come in order, `onClose` last and exactly once. */
export interface StreamSink {
  /** A response head: any number of 1xx, then one final. Opener only. `end`: no body and no trailers follow. */
  onHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void;
  /**
   * Body bytes (after a 101 or on a TCP stream: raw bytes). `end`: the sender's half is closed; the chunk may be empty.
   * The receiver owns `chunk` and gives its credit back with `Stream.consumed` once the bytes have gone on.
   */
  onData(chunk: Buffer, end: boolean): void;
  /** Trailer fields; the sender's half is closed. */
  onTrailers(headers: FlatHeaders): void;
  /** After `write` returned false: more may be written now. */
  onWritable(): void;
  /** The stream is over: `undefined` when both halves ended cleanly, else the code of the reset or of the lost session. */
  onClose(code: ErrorCode | undefined, message: string): void;
}

/** One request and its answer, or one raw connection, inside a session. */
export interface Stream {
  readonly id: number;
  /** True until `onClose`. Every sending method is a no-op once false. */
  readonly isOpen: boolean;
  /** True when this side has sent its end. */
  readonly sentEnd: boolean;
  /** Acceptor only: an interim (1xx, 101) or final head, with the first body bytes when they are at hand. */
  sendHead(head: ResponseHead, body: Buffer | undefined, end: boolean): boolean;
  /**
   * Queues body bytes; keeps a reference to `chunk` until they are sent.
   * Returns false when the queue is above its low-water mark: wait for `onWritable` before writing more (the bytes given
   * were taken all the same).
   */
  write(chunk: Buffer, end: boolean): boolean;
  /** Sends trailers and the end. */
  sendTrailers(headers: FlatHeaders): void;
  /** Half-close without more bytes. */
  end(): void;
  /** Gives back the credit of `bytes` received bytes. */
  consumed(bytes: number): void;
  /** Acceptor only: the answer is complete and the rest of the request is not wanted (Close Stream, empty payload). */
  finish(): void;
  /** Aborts both halves now. `onClose` is called on this side too, with the same code. */
  reset(code: ErrorCode, message?: string): void;
}

/** Somewhere a request can be sent: a session with an agent, or a relay link to the node that has it. */
export interface Upstream {
  /** False while draining, closed, out of stream ids, or unanswered for too long: choose another. */
  readonly available: boolean;
  /** Streams open now, for the choice by load. */
  readonly load: number;
  /**
   * Opens a stream. `body`: first body bytes already at hand. `end`: the request has no more.
   * @throws CulvertError `not_processed` when nothing was written and another upstream may be tried; `overloaded` when the
   * session is at its stream limit.
   */
  open(head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream;
}
