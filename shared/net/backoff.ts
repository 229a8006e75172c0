/**
 * Waits between attempts: the first retry comes almost at once, later ones double up to a cap, each with full jitter so that
 * the agents of a lost node do not return in step (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
 */
export class Backoff {
  readonly #first: number;
  readonly #cap: number;
  readonly #random: () => number;
  #failures = 0;

  /** @param first milliseconds, the longest first wait  @param cap milliseconds, the longest wait of all */
  constructor(first: number, cap: number, random: () => number = Math.random) {
    this.#first = Math.min(first, cap);
    this.#cap = cap;
    this.#random = random;
  }

  /** Attempts that failed since the last `reset`. */
  get failures(): number {
    return this.#failures;
  }

  /** Milliseconds to wait before the next attempt: half to all of the current step. */
  next(): number {
    const step = Math.min(this.#cap, this.#first * 2 ** Math.min(this.#failures, 30));
    this.#failures += 1;
    return step * (0.5 + this.#random() / 2);
  }

  reset(): void {
    this.#failures = 0;
  }
}
