import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import type { NodeFigures, Totals, Traffic } from '../../../shared/control/figures.ts';
import { quantile } from './quantile.ts';

/** What has been counted since the start. */
export interface TrafficSource {
  readonly totals: Totals;
  /** Seconds, by bucket; the last count is of what lies above all bounds. */
  readonly durations: { readonly bounds: readonly number[]; readonly counts: Float64Array };
}

interface Sample {
  readonly at: number;
  readonly totals: Totals;
  readonly counts: Float64Array;
  /** Microseconds of processor time that the process has used. */
  readonly cpu: number;
}

/** Between two samples, milliseconds. Rates span the last two of them and what came since. */
const INTERVAL = 5000;
/** Resolution of the event loop's delay, milliseconds: a timer of this period. */
const LAG_RESOLUTION = 20;
const NANOSECONDS = 1e6;

export type RecentFigures = Pick<NodeFigures, 'rates' | 'latency' | 'eventLoopLag' | 'cpu'>;

/** Turns counts since the start into what the node does now. Costs a few microseconds each 5 s. */
export class TrafficMeter {
  readonly #source: TrafficSource;
  readonly #timer: NodeJS.Timeout;
  readonly #lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION });
  #before: Sample;
  #last: Sample;
  #lagBefore: NodeFigures['eventLoopLag'] | undefined;

  constructor(source: TrafficSource) {
    this.#source = source;
    this.#last = this.#sample();
    this.#before = this.#last;
    this.#lag.enable();
    this.#timer = setInterval(() => this.#tick(), INTERVAL);
    this.#timer.unref();
  }

  get recent(): RecentFigures {
    const now = this.#sample();
    const seconds = Math.max(0.001, (now.at - this.#before.at) / 1000);
    const perSecond = (key: keyof Totals): number => (now.totals[key] - this.#before.totals[key]) / seconds;
    const rates: Traffic = {
      requests: perSecond('requests'),
      errors: perSecond('errors'),
      relayed: perSecond('relayed'),
      bytesIn: perSecond('bytesIn'),
      bytesOut: perSecond('bytesOut'),
    };
    const counts = now.counts.map((count, bucket) => count - (this.#before.counts[bucket] ?? 0));
    const { bounds } = this.#source.durations;
    const milliseconds = (share: number): number => 1000 * quantile(bounds, counts, share);
    const isBusy = counts.some((count) => count > 0);
    return {
      rates,
      latency: isBusy ? { p50: milliseconds(0.5), p95: milliseconds(0.95), p99: milliseconds(0.99) } : null,
      eventLoopLag: worse(this.#lagBefore, lagOf(this.#lag)),
      cpu: (now.cpu - this.#before.cpu) / 1e6 / seconds,
    };
  }

  close(): void {
    clearInterval(this.#timer);
    this.#lag.disable();
  }

  #tick(): void {
    this.#before = this.#last;
    this.#last = this.#sample();
    this.#lagBefore = lagOf(this.#lag);
    this.#lag.reset();
  }

  #sample(): Sample {
    const { user, system } = process.cpuUsage();
    const { totals, durations } = this.#source;
    return { at: performance.now(), totals, counts: durations.counts, cpu: user + system };
  }
}

type Lag = NodeFigures['eventLoopLag'];

/** The histogram has the time between two of its timers, which is their period when nothing is late. */
function lagOf(histogram: ReturnType<typeof monitorEventLoopDelay>): Lag {
  const late = (nanoseconds: number): number => Math.max(0, nanoseconds / NANOSECONDS - LAG_RESOLUTION);
  if (histogram.count === 0) return { p50: 0, p99: 0, max: 0 };
  return { p50: late(histogram.percentile(50)), p99: late(histogram.percentile(99)), max: late(histogram.max) };
}

function worse(a: Lag | undefined, b: Lag): Lag {
  if (a === undefined) return b;
  return { p50: Math.max(a.p50, b.p50), p99: Math.max(a.p99, b.p99), max: Math.max(a.max, b.max) };
}
