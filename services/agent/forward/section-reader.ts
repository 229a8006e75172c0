import { MAX_HEAD_BYTES } from '../../../shared/protocol/heads.ts';

const NO_BYTES = Buffer.alloc(0);
const END = Buffer.from('\r\n\r\n', 'latin1');

/** `read` needs more bytes. */
export const INCOMPLETE = -1;
/** The section is larger than 128 KiB. */
export const TOO_LARGE = -2;

/** Finds a head or a trailer section, which both end with the first empty line, in bytes that come in any pieces. */
export class SectionReader {
  /** The section that `read` found, its empty line included; Latin-1. */
  text = '';
  /** What came of a section whose end has not come; grows by doubling. */
  #held = NO_BYTES;
  #length = 0;

  /** Takes bytes from `at` to `length`. Gives the place behind the section, `INCOMPLETE` or `TOO_LARGE`. */
  read(buffer: Buffer, at: number, length: number): number {
    if (this.#length > 0) return this.#continue(buffer, at, length);
    const found = buffer.indexOf(END, at);
    if (found < 0 || found + 4 > length) {
      this.hold(buffer, at, length);
      return this.#length >= MAX_HEAD_BYTES ? TOO_LARGE : INCOMPLETE;
    }
    if (found + 4 - at > MAX_HEAD_BYTES) return TOO_LARGE;
    this.text = buffer.toString('latin1', at, found + 4);
    return found + 4;
  }

  /** Keeps bytes as the start of a section. */
  hold(buffer: Buffer, at: number, length: number): void {
    const needed = this.#length + length - at;
    if (this.#held.length < needed) {
      const larger = Buffer.allocUnsafe(Math.max(1024, needed, this.#held.length * 2));
      this.#held.copy(larger, 0, 0, this.#length);
      this.#held = larger;
    }
    buffer.copy(this.#held, this.#length, at, length);
    this.#length = needed;
  }

  /** False when what is held differs from `prefix` already. */
  maybeStartsWith(prefix: Buffer): boolean {
    const known = Math.min(this.#length, prefix.length);
    return this.#held.compare(prefix, 0, known, 0, known) === 0;
  }

  clear(): void {
    this.#held = NO_BYTES;
    this.#length = 0;
  }

  #continue(buffer: Buffer, at: number, length: number): number {
    const before = this.#length;
    this.hold(buffer, at, length);
    const end = this.#held.subarray(0, this.#length).indexOf(END, Math.max(0, before - 3)) + 4;
    if (end < 4) return this.#length >= MAX_HEAD_BYTES ? TOO_LARGE : INCOMPLETE;
    if (end > MAX_HEAD_BYTES) return TOO_LARGE;
    this.text = this.#held.toString('latin1', 0, end);
    this.clear();
    return at + end - before;
  }
}
