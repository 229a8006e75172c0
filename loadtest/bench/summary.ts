import { LARGE_BYTES } from './content.ts';
import type { Sample } from './measure.ts';
import { ratios, type Spread, spread } from './statistics.ts';
import type { Role } from './tunnel.ts';

/** The rounds of one target. */
export interface TargetSummary {
  readonly requestsPerSecond: Spread;
  /** Milliseconds. */
  readonly p50: Spread;
  /** Milliseconds. */
  readonly p99: Spread;
  readonly bytesPerSecond: Spread;
  /** Failed requests of all rounds. */
  readonly errors: number;
}

/** One tunnel compared with another target, round by round: 1 is as fast. */
export interface Share {
  readonly requests: Spread;
  readonly transfer: Spread;
}

/** CPU time of one process for a unit of work. It varies less than speed does when the machine is shared. */
export interface Cost {
  /** Microseconds for one small request. */
  readonly perRequest: Spread;
  /** Seconds for 1 GB. */
  readonly perGigabyte: Spread;
}

/** Throws RangeError for no samples. */
export function summariseTarget(samples: readonly Sample[]): TargetSummary {
  const of = (pick: (sample: Sample) => number) => spread(samples.map(pick));
  return {
    requestsPerSecond: of((sample) => sample.requestsPerSecond),
    p50: of((sample) => sample.p50),
    p99: of((sample) => sample.p99),
    bytesPerSecond: of((sample) => sample.bytesPerSecond),
    errors: samples.reduce((sum, { errors }) => sum + errors, 0),
  };
}

/** Throws RangeError unless both have the same rounds. */
export function shareOf(samples: readonly Sample[], reference: readonly Sample[]): Share {
  const of = (pick: (sample: Sample) => number) => spread(ratios(samples.map(pick), reference.map(pick)));
  return {
    requests: of((sample) => sample.requestsPerSecond),
    transfer: of((sample) => sample.bytesPerSecond),
  };
}

/** Throws RangeError for no samples. A round without an answered request gives Infinity. */
export function costOf(samples: readonly Sample[], role: Role): Cost {
  const gigabytes = LARGE_BYTES / 1e9;
  return {
    perRequest: spread(samples.map((sample) => ((sample.requestsCpu[role] ?? 0) * 1e6) / sample.requests)),
    perGigabyte: spread(samples.map((sample) => (sample.transferCpu[role] ?? 0) / gigabytes)),
  };
}
