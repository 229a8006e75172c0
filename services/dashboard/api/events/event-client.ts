import type { Writable } from 'node:stream';
import type { Principal } from '../../../../shared/control/principal.ts';
import type { ErrorCode } from '../../../../shared/errors/codes.ts';

/** Bytes that may wait for one reader; who is further behind is dropped. */
const MAX_BACKLOG = 512 * 1024;
/** For the last event to leave, milliseconds. */
const CLOSE_GRACE = 5000;
/** Node's timers hold no longer delay, milliseconds. */
const LONGEST_TIMER = 0x7fff_ffff;

/** One reader of the stream of events (WHATWG HTML, section 9.2). */
export class EventClient {
  readonly principal: Principal;
  readonly #out: Writable;
  readonly #expiry: NodeJS.Timeout | undefined;
  #isOver = false;

  /** @param onClosed called once, when its connection is gone */
  constructor(principal: Principal, out: Writable, onClosed: () => void) {
    this.principal = principal;
    this.#out = out;
    out.on('error', () => {});
    out.once('close', () => {
      this.#isOver = true;
      clearTimeout(this.#expiry);
      onClosed();
    });
    const left = principal.expiresAt - Date.now();
    // Beyond the longest timer the connection will have ended otherwise.
    if (left > LONGEST_TIMER) return;
    this.#expiry = setTimeout(() => this.drop('invalid_token', 'the credentials have expired'), Math.max(0, left));
    this.#expiry.unref();
  }

  /** Whether what belongs to this account, or with undefined to the cluster, is for this reader. */
  sees(accountId: string | undefined): boolean {
    return this.principal.accountId === undefined || this.principal.accountId === accountId;
  }

  /** @param text one or more whole events */
  send(text: string): void {
    if (this.#isOver) return;
    if (this.#out.writableLength > MAX_BACKLOG) this.drop('overloaded', 'the reader is too slow');
    else this.#out.write(text);
  }

  /** Ends it, with a last event that says why. */
  drop(code: ErrorCode, message: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#out.end(eventText('dropped', { at: Date.now(), code, message }));
    setTimeout(() => this.#out.destroy(), CLOSE_GRACE).unref();
  }
}

/** @param id for Last-Event-ID; undefined for what need not be told again */
export function eventText(type: string, data: object, id?: string): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
}
