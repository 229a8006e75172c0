/** Between two looks at the clock, milliseconds. */
const TICK = 500;
/** A process that did nothing for so long has stood still (SIGSTOP, a suspended machine, starved of CPU). Milliseconds. */
const STALL = 2000;
/** After a stall: for its timers to have run and what they ask to be answered, milliseconds. */
const SETTLE = 1000;
/** Longest time after a stall in which `isRecovered` is waited for, milliseconds. */
const RECOVERY = 10_000;

/**
 * Knows whether this process has just stood still: its connections are then dead and others may have taken its place, which
 * it learns only a moment after it has begun to answer again.
 */
export class StallWatch {
  readonly #isRecovered: () => boolean;
  readonly #timer: NodeJS.Timeout;
  #lastLook = performance.now();
  #woke: number | undefined;

  /** @param isRecovered whether all is there again that a stall may have cost */
  constructor(isRecovered: () => boolean) {
    this.#isRecovered = isRecovered;
    this.#timer = setInterval(() => this.#look(), TICK);
    this.#timer.unref();
  }

  /** From the end of a stall until the process has found its place again. */
  get isRecovering(): boolean {
    // Input that waited is dealt with before the timer that is overdue.
    const now = this.#look();
    if (this.#woke === undefined) return false;
    const awake = now - this.#woke;
    if (awake > RECOVERY || (awake > SETTLE && this.#isRecovered())) this.#woke = undefined;
    return this.#woke !== undefined;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #look(): number {
    const now = performance.now();
    if (now - this.#lastLook > STALL) this.#woke = now;
    this.#lastLook = now;
    return now;
  }
}
