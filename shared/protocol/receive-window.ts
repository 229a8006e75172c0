import type { ByteBudget } from './budget.ts';
import { INITIAL_WINDOW, MAX_WINDOW } from './frame.ts';

/**
 * Credit that one direction of a stream has given to its sender.
 *
 * Credit goes back in portions of half a window. A window doubles when a portion is used up within two round trips: the
 * sender is then held back by the window and not by the reader (the idea of quic-go's auto-tuning; RFC 9000 section 4.2
 * leaves the policy open). Growth is taken from the session's and the process's budget.
 */
export class ReceiveWindow {
  readonly #budget: ByteBudget;
  #size = INITIAL_WINDOW;
  /** What the sender may still send. */
  #credit = INITIAL_WINDOW;
  /** Received and not yet consumed. */
  #held = 0;
  /** Consumed and not yet given back. */
  #owed = 0;
  #lastGrant = 0;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  get held(): number {
    return this.#held;
  }

  get size(): number {
    return this.#size;
  }

  /** Takes received bytes. Returns false when the sender had no credit for them. */
  receive(bytes: number): boolean {
    if (bytes > this.#credit) return false;
    this.#credit -= bytes;
    this.#held += bytes;
    return true;
  }

  /**
   * Counts bytes as passed on. Returns the credit to send to the peer now, 0 for none.
   * @param now milliseconds, monotonic
   * @param roundTrip milliseconds
   */
  consume(bytes: number, now: number, roundTrip: number): number {
    const passed = Math.min(bytes, this.#held);
    this.#held -= passed;
    this.#budget.free(passed);
    this.#owed += passed;
    if (this.#owed < this.#size / 2) return 0;
    let grant = this.#owed;
    this.#owed = 0;
    if (now - this.#lastGrant < 2 * roundTrip && this.#size < MAX_WINDOW && this.#budget.promise(this.#size)) {
      grant += this.#size;
      this.#size *= 2;
    }
    this.#lastGrant = now;
    this.#credit += grant;
    return grant;
  }

  /** The stream is over: returns everything to the budget. */
  dispose(): void {
    this.#budget.free(this.#held);
    this.#budget.release(this.#size - INITIAL_WINDOW);
    this.#held = 0;
    this.#owed = 0;
    this.#size = INITIAL_WINDOW;
  }
}
