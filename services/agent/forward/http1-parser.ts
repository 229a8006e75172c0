import type { FlatHeaders, ResponseHead } from '../../../shared/protocol/heads.ts';
import { cleanTrailers, IS_TEXT } from './fields.ts';
import { ResponseHeadReader } from './response-head.ts';
import { INCOMPLETE, SectionReader, TOO_LARGE } from './section-reader.ts';

/** Interim responses before one final response; more is a service that never answers. */
export const MAX_INTERIM = 16;
/** Chunk extensions are skipped, up to this many bytes for one message (RFC 9112 section 7.1.1 asks for a limit). */
const MAX_EXTENSION_BYTES = 16 * 1024;
/** Hex digits of a chunk size, leading zeros included. */
const MAX_SIZE_DIGITS = 16;

/** Receives the parts of one response, in order. `body` and `chunk` are slices of what was given to `execute`. */
export interface ResponseHandler {
  /** Any number of 1xx, then one final head or a 101. `end`: the message is complete with `body`. */
  onResponseHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void;
  /** After a 101: raw bytes, never with `end`. */
  onResponseData(chunk: Buffer, end: boolean): void;
  /** The message is complete. */
  onResponseTrailers(headers: FlatHeaders): void;
}

const NO_BYTES = Buffer.alloc(0);
const CRLF = Buffer.from('\r\n', 'latin1');
const VERSION = Buffer.from('HTTP/1.', 'latin1');
const CR = 0x0d;
const LF = 0x0a;

const HEAD = 0;
const LENGTH = 1;
const CHUNK_SIZE = 2;
const CHUNK_EXTENSION = 3;
const CHUNK_SIZE_LF = 4;
const CHUNK_DATA = 5;
const CHUNK_CR = 6;
const CHUNK_LF = 7;
const TRAILERS = 8;
const UNTIL_CLOSE = 9;
const RAW = 10;
const DONE = 11;
const FAILED = 12;

/**
 * A strict, incremental parser of HTTP/1.x responses (RFC 9112), one message after the other: `reset` before each.
 *
 * It looks one body slice ahead within the bytes at hand, so that a response that arrives whole is one call:
 * `onResponseHead(head, body, true)`.
 */
export class ResponseParser {
  #handler: ResponseHandler | undefined;
  #state = DONE;
  #noBody = false;
  #interim = 0;
  readonly #reader = new ResponseHeadReader();
  readonly #sections = new SectionReader();
  #remaining = 0;
  #digits = 0;
  #extensionBytes = 0;
  #pendingHead: ResponseHead | undefined;
  #pendingBody: Buffer | undefined;
  #leftover = false;
  #error = '';

  /** Expects a new response. `noBody`: the request was HEAD. */
  reset(handler: ResponseHandler, noBody: boolean): void {
    this.#handler = handler;
    this.#noBody = noBody;
    this.#state = HEAD;
    this.#interim = 0;
    this.#sections.clear();
    this.#extensionBytes = 0;
    this.#leftover = false;
  }

  get done(): boolean {
    return this.#state === DONE;
  }

  /** Why the bytes are not an HTTP response; undefined while they are. */
  get error(): string | undefined {
    return this.#state === FAILED ? this.#error : undefined;
  }

  /** After `done`: the connection can carry another request. */
  get reusable(): boolean {
    return this.#state === DONE && this.#reader.keepAlive && !this.#leftover;
  }

  /** Seconds of the response's `Keep-Alive: timeout=N`, -1 when absent. */
  get keepAliveSeconds(): number {
    return this.#reader.keepAliveSeconds;
  }

  /** Takes the first `length` bytes of `buffer`. */
  execute(buffer: Buffer, length: number): void {
    let at = 0;
    while (at < length && this.#state !== FAILED) {
      switch (this.#state) {
        case HEAD:
        case TRAILERS:
          at = this.#section(buffer, at, length);
          break;
        case LENGTH:
        case CHUNK_DATA:
          at = this.#data(buffer, at, length);
          break;
        case UNTIL_CLOSE:
        case RAW:
          this.#body(at === 0 && length === buffer.length ? buffer : buffer.subarray(at, length));
          at = length;
          break;
        case DONE:
          this.#leftover = true;
          at = length;
          break;
        default:
          at = this.#framing(buffer, at, length);
      }
    }
    this.#flush(false);
  }

  /** The service closed its half. False when the message is not complete by that. */
  finish(): boolean {
    if (this.#state === UNTIL_CLOSE) this.#complete();
    return this.#state === DONE;
  }

  /** A head or a trailer section. */
  #section(buffer: Buffer, at: number, length: number): number {
    const section = this.#sections;
    const next = section.read(buffer, at, length);
    if (next === TOO_LARGE) return this.#fail('the head is larger than 128 KiB');
    if (next === INCOMPLETE) {
      // What cannot become a status line fails now, not at the timeout.
      if (this.#state === HEAD && !section.maybeStartsWith(VERSION)) return this.#fail('not an HTTP/1.x response');
      return length;
    }
    if (this.#state === TRAILERS) this.#trailers(section.text);
    else this.#head(section.text);
    return next;
  }

  #head(text: string): void {
    const reader = this.#reader;
    reader.error = '';
    if (!reader.read(text)) {
      this.#fail(reader.error);
      return;
    }
    const { status } = reader;
    const head: ResponseHead = { status, reason: reader.reason, headers: reader.headers };
    if (status < 200 && status !== 101) {
      if (++this.#interim > MAX_INTERIM) this.#fail(`more than ${MAX_INTERIM} interim responses`);
      else this.#handler?.onResponseHead(head, undefined, false);
      return;
    }
    this.#pendingHead = head;
    // RFC 9112 section 6.3, in its order.
    if (status === 101) this.#state = RAW;
    else if (this.#noBody || status === 204 || status === 304) this.#complete();
    else if (reader.chunked) this.#expectChunk();
    else if (reader.length > 0) {
      this.#remaining = reader.length;
      this.#state = LENGTH;
    } else if (reader.length === 0) this.#complete();
    else {
      reader.keepAlive = false;
      this.#state = UNTIL_CLOSE;
    }
  }

  #trailers(text: string): void {
    const reader = this.#reader;
    // The text starts with the line end of the last chunk's size.
    if (text.length === 4) {
      this.#complete();
      return;
    }
    reader.error = '';
    if (!reader.readTrailers(text.slice(2))) {
      this.#fail(reader.error);
      return;
    }
    const trailers = cleanTrailers(reader.headers);
    if (trailers.length === 0) {
      this.#complete();
      return;
    }
    this.#flush(false);
    this.#state = DONE;
    this.#handler?.onResponseTrailers(trailers);
  }

  #expectChunk(): void {
    this.#state = CHUNK_SIZE;
    this.#remaining = 0;
    this.#digits = 0;
  }

  #data(buffer: Buffer, at: number, length: number): number {
    const next = Math.min(length, at + this.#remaining);
    this.#remaining -= next - at;
    this.#body(buffer.subarray(at, next));
    if (this.#remaining === 0) {
      if (this.#state === LENGTH) this.#complete();
      else this.#state = CHUNK_CR;
    }
    return next;
  }

  /** One byte of what surrounds chunk data (RFC 9112 section 7.1). */
  #framing(buffer: Buffer, at: number, length: number): number {
    let next = at;
    while (next < length) {
      const byte = buffer[next] ?? 0;
      switch (this.#state) {
        case CHUNK_SIZE: {
          const digit = hexDigit(byte);
          if (digit >= 0) {
            this.#remaining = this.#remaining * 16 + digit;
            if (++this.#digits > MAX_SIZE_DIGITS || this.#remaining > Number.MAX_SAFE_INTEGER) {
              return this.#fail('a chunk size is too large');
            }
          } else if (this.#digits === 0) return this.#fail('a chunk size is not a hexadecimal number');
          else if (byte === CR) this.#state = CHUNK_SIZE_LF;
          else if (byte === 0x3b || byte === 0x20 || byte === 0x09) this.#state = CHUNK_EXTENSION;
          else return this.#fail('a chunk size is not a hexadecimal number');
          break;
        }
        case CHUNK_EXTENSION:
          if (byte === CR) this.#state = CHUNK_SIZE_LF;
          else if (IS_TEXT[byte] === 0) return this.#fail('a chunk extension holds a control character');
          else if (++this.#extensionBytes > MAX_EXTENSION_BYTES) return this.#fail('chunk extensions are too large');
          break;
        case CHUNK_SIZE_LF:
          if (byte !== LF) return this.#fail('a chunk size does not end with CRLF');
          next++;
          if (this.#remaining > 0) this.#state = CHUNK_DATA;
          else if (next + 2 <= length && buffer[next] === CR && buffer[next + 1] === LF) {
            this.#complete();
            return next + 2;
          } else {
            this.#state = TRAILERS;
            this.#sections.hold(CRLF, 0, 2);
          }
          return next;
        case CHUNK_CR:
          if (byte !== CR) return this.#fail('a chunk is longer than its size');
          this.#state = CHUNK_LF;
          break;
        default:
          if (byte !== LF) return this.#fail('a chunk does not end with CRLF');
          this.#expectChunk();
      }
      next++;
    }
    return next;
  }

  #body(slice: Buffer): void {
    if (this.#pendingBody !== undefined) this.#flush(false);
    this.#pendingBody = slice;
  }

  #complete(): void {
    this.#state = DONE;
    this.#flush(true);
  }

  #flush(end: boolean): void {
    const head = this.#pendingHead;
    const body = this.#pendingBody;
    if (head !== undefined) {
      this.#pendingHead = undefined;
      this.#pendingBody = undefined;
      this.#handler?.onResponseHead(head, body, end);
    } else if (body !== undefined || end) {
      this.#pendingBody = undefined;
      this.#handler?.onResponseData(body ?? NO_BYTES, end);
    }
  }

  /** What came before the fault is still given on, so that the outcome does not depend on how the bytes were split. */
  #fail(why: string): number {
    this.#flush(false);
    this.#state = FAILED;
    this.#error = why;
    this.#sections.clear();
    return 0;
  }
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}
