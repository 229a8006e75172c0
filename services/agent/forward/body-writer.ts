import type { Socket } from 'node:net';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { Stream } from '../../../shared/protocol/stream-types.ts';
import { cleanTrailers } from './fields.ts';

/** Up to this many bytes are copied behind their framing, so that both leave in one write; more is not worth the copy. */
const COALESCE_BYTES = 16 * 1024;
const LAST_CHUNK = '0\r\n\r\n';

/**
 * Writes the body of one request, framed, and gives the stream its credit back as the socket takes the bytes.
 *
 * A body longer or shorter than its Content-Length is never passed on whole: the service would read the next request of
 * this connection from a wrong place.
 */
export class BodyWriter {
  /** The whole request is written. */
  ended = false;
  readonly #socket: Socket;
  readonly #stream: Stream;
  /** Bytes that Content-Length still lets through; ignored when chunked. */
  #left: number;
  readonly #chunked: boolean;
  #owed = 0;

  /** `length`: Content-Length; less than 0 is no body. */
  constructor(socket: Socket, stream: Stream, length: number, chunked: boolean) {
    this.#socket = socket;
    this.#stream = stream;
    this.#left = Math.max(0, length);
    this.#chunked = chunked;
  }

  /** Bytes that the socket has not taken yet. */
  get owed(): number {
    return this.#owed;
  }

  /** The request head with the first body bytes. `credited`: an earlier attempt gave their credit back. */
  start(text: string, chunk: Buffer | undefined, end: boolean, credited: boolean): void {
    if (chunk === undefined || chunk.length === 0) {
      this.#socket.write(text, 'latin1');
      if (end) this.ended = true;
    } else {
      this.#send(text, chunk, end, credited ? 0 : chunk.length);
    }
  }

  /** False when the bytes contradict Content-Length; the exchange is lost then. */
  write(chunk: Buffer, end: boolean): boolean {
    if (!this.#chunked && (chunk.length > this.#left || (end && chunk.length < this.#left))) return false;
    if (chunk.length > 0) {
      this.#send('', chunk, end, chunk.length);
    } else if (end) {
      if (this.#chunked) this.#socket.write(LAST_CHUNK, 'latin1');
      this.ended = true;
    }
    return true;
  }

  /** Ends the body. Without chunked framing there is no place for trailers, and they are dropped (RFC 9110 section 6.5). */
  trailers(headers: FlatHeaders): boolean {
    if (!this.#chunked) return this.write(Buffer.alloc(0), true);
    const allowed = cleanTrailers(headers);
    let text = '0\r\n';
    for (let i = 0; i < allowed.length; i += 2) text += `${allowed[i]}: ${allowed[i + 1]}\r\n`;
    this.#socket.write(`${text}\r\n`, 'latin1');
    this.ended = true;
    return true;
  }

  drained(): void {
    const bytes = this.#owed;
    this.#owed = 0;
    if (bytes > 0) this.#stream.consumed(bytes);
  }

  #send(head: string, chunk: Buffer, end: boolean, credit: number): void {
    const before = this.#chunked ? `${head}${chunk.length.toString(16)}\r\n` : head;
    const after = !this.#chunked ? '' : end ? `\r\n${LAST_CHUNK}` : '\r\n';
    if (!this.#chunked) this.#left -= chunk.length;
    if (end) this.ended = true;
    if (this.#writeOut(before, chunk, after)) {
      if (credit > 0) this.#stream.consumed(credit);
    } else {
      this.#owed += credit;
    }
  }

  #writeOut(before: string, chunk: Buffer, after: string): boolean {
    const socket = this.#socket;
    if (before === '' && after === '') return socket.write(chunk);
    if (chunk.length <= COALESCE_BYTES) {
      const all = Buffer.allocUnsafe(before.length + chunk.length + after.length);
      all.write(before, 0, 'latin1');
      all.set(chunk, before.length);
      all.write(after, before.length + chunk.length, 'latin1');
      return socket.write(all);
    }
    socket.cork();
    if (before !== '') socket.write(before, 'latin1');
    let more = socket.write(chunk);
    if (after !== '') more = socket.write(after, 'latin1');
    socket.uncork();
    // Uncorking writes at once: ask what is left, not what was queued while corked.
    return more || !socket.writableNeedDrain;
  }
}
