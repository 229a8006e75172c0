import {
  AHEAD_SHARE,
  type Draw,
  type Drawn,
  type Hold,
  type Month,
  type QuotaStore,
  type Usage,
  type UsageAddition,
} from '../quota-store.ts';

interface Level {
  level: number;
  /** Milliseconds of the clock. */
  at: number;
  /** Milliseconds of the clock at which it is full again, so that it need not be kept. */
  fullAt: number;
}

interface Held {
  count: number;
  expiresAt: number;
}

interface MonthOfAccount {
  usage: Usage;
  readonly sequences: Map<string, number>;
}

/** Buckets between two looks for those that are full again. */
const PRUNE_EVERY = 1000;

/** For a node that is alone. What it counted is lost with the process. */
export class MemoryQuotaStore implements QuotaStore {
  readonly #now: () => number;
  readonly #levels = new Map<string, Level>();
  readonly #held = new Map<string, Map<string, Held>>();
  readonly #usage = new Map<string, MonthOfAccount>();
  #untilPrune = PRUNE_EVERY;

  /** @param now milliseconds that only grow. Default performance.now */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Buckets and permits in memory. */
  get size(): number {
    return this.#levels.size + this.#held.size;
  }

  async draw(accountId: string, draws: readonly Draw[]): Promise<readonly Drawn[]> {
    return draws.map((each) => this.#draw(key(accountId, each.bucket), each));
  }

  async hold(accountId: string, { permit, holder, limit, inUse, want, ttl }: Hold): Promise<number> {
    const now = this.#now();
    const at = key(accountId, permit);
    const holders = this.#held.get(at) ?? new Map<string, Held>();
    let others = 0;
    for (const [other, held] of holders) {
      if (held.expiresAt <= now) holders.delete(other);
      else if (other !== holder) others += held.count;
    }
    const count = Math.max(inUse, Math.min(want, limit - others));
    if (count > 0) holders.set(holder, { count, expiresAt: now + ttl });
    else holders.delete(holder);
    if (holders.size > 0) this.#held.set(at, holders);
    else this.#held.delete(at);
    return Math.max(0, count);
  }

  async addUsage(accountId: string, { month, source, sequence, delta, known }: UsageAddition): Promise<Usage> {
    const at = key(accountId, month);
    const entry = this.#usage.get(at) ?? { usage: NOTHING, sequences: new Map<string, number>() };
    this.#usage.set(at, entry);
    const base = larger(entry.usage, known);
    if (sequence > (entry.sequences.get(source) ?? 0)) {
      entry.sequences.set(source, sequence);
      entry.usage = sum(base, delta);
    } else entry.usage = base;
    return entry.usage;
  }

  async usage(accountId: string, month: Month): Promise<Usage> {
    return this.#usage.get(key(accountId, month))?.usage ?? NOTHING;
  }

  close(): void {
    this.#levels.clear();
    this.#held.clear();
    this.#usage.clear();
  }

  #draw(at: string, { rate, burst, used, want, need }: Draw): Drawn {
    const now = this.#now();
    this.#prune(now);
    const before = this.#levels.get(at);
    const filled = before === undefined ? burst : before.level + (rate * Math.max(0, now - before.at)) / 1000;
    const level = Math.min(burst, filled - used);
    const left = Math.max(0, Math.floor(level));
    const granted = Math.min(left, want, Math.max(need, Math.floor(left * AHEAD_SHARE)));
    const rest = level - granted;
    if (rest >= burst) this.#levels.delete(at);
    else this.#levels.set(at, { level: rest, at: now, fullAt: now + ((burst - rest) / rate) * 1000 });
    return { granted, level: rest };
  }

  #prune(now: number): void {
    this.#untilPrune -= 1;
    if (this.#untilPrune > 0) return;
    for (const [at, { fullAt }] of this.#levels) if (fullAt <= now) this.#levels.delete(at);
    this.#untilPrune = Math.max(PRUNE_EVERY, this.#levels.size);
  }
}

const NOTHING: Usage = { requests: 0, bytesIn: 0, bytesOut: 0 };

function key(accountId: string, part: string): string {
  return `${accountId}\n${part}`;
}

function sum(a: Usage, b: Usage): Usage {
  return { requests: a.requests + b.requests, bytesIn: a.bytesIn + b.bytesIn, bytesOut: a.bytesOut + b.bytesOut };
}

function larger(a: Usage, b: Usage): Usage {
  return {
    requests: Math.max(a.requests, b.requests),
    bytesIn: Math.max(a.bytesIn, b.bytesIn),
    bytesOut: Math.max(a.bytesOut, b.bytesOut),
  };
}
