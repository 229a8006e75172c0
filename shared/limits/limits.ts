import { z } from 'zod';
import { parseBytes } from '../config/values.ts';

/**
 * What an account may use in the whole cluster. Limits stand in the node's configuration, in the account's record and in what an
 * agent signs in with; of each the strictest counts (`strictest`). A limit that is absent does not bind.
 */

const MAX_COUNT = 1_000_000;
const MAX_BYTES = Number.MAX_SAFE_INTEGER;

/** Agent sessions. 0 lets none in. */
const connections = z.int().min(0).max(MAX_COUNT);
/** Tunnel names. 0 lets none in. */
const tunnels = z.int().min(0).max(MAX_COUNT);
/** Requests of visitors per second, on average. */
const requestsPerSecond = z.number().min(0.01).max(MAX_COUNT);
/** Requests at once after a pause. Without it: those of one second, at least 1 (`burstOf`). */
const burst = z.int().min(1).max(MAX_COUNT);
/** Body bytes per second from visitors (in) or to visitors (out); of an upgraded connection, all its bytes. */
const bandwidth = z.int().min(1024).max(MAX_BYTES);
/** Requests that one agent serves at the same time, whichever of its sessions they take. */
const streamsPerAgent = z.int().min(1).max(MAX_COUNT);
/** Bytes of one request's body. */
const bodyBytes = z.int().min(1).max(MAX_BYTES);
/** Body bytes in both directions together in a calendar month of UTC. */
const bytesPerMonth = z.int().min(1).max(MAX_BYTES);

/** Limits as they are stored and sent: plain numbers. Fields that it does not know are left out. */
export const Limits = z.object({
  connections: connections.exactOptional(),
  tunnels: tunnels.exactOptional(),
  requestsPerSecond: requestsPerSecond.exactOptional(),
  burst: burst.exactOptional(),
  bandwidthIn: bandwidth.exactOptional(),
  bandwidthOut: bandwidth.exactOptional(),
  streamsPerAgent: streamsPerAgent.exactOptional(),
  bodyBytes: bodyBytes.exactOptional(),
  bytesPerMonth: bytesPerMonth.exactOptional(),
});
export type Limits = Readonly<z.infer<typeof Limits>>;

/** Limits as people write them: sizes may have a unit, `10MB` or `64KiB`, bandwidths `10MB/s` too. Unknown fields are refused. */
export const WrittenLimits = z.strictObject({
  ...Limits.shape,
  bandwidthIn: written(bandwidth, /\/s$/).exactOptional(),
  bandwidthOut: written(bandwidth, /\/s$/).exactOptional(),
  bodyBytes: written(bodyBytes).exactOptional(),
  bytesPerMonth: written(bytesPerMonth).exactOptional(),
});

export const LIMIT_NAMES = Limits.keyof().options;
export type LimitName = (typeof LIMIT_NAMES)[number];

/** Of each limit the smallest that is given. */
export function strictest(...all: readonly (Limits | undefined)[]): Limits {
  const result: { -readonly [K in LimitName]?: number } = {};
  for (const limits of all) {
    if (limits === undefined) continue;
    for (const name of LIMIT_NAMES) {
      const value = limits[name];
      if (value !== undefined && value < (result[name] ?? Number.POSITIVE_INFINITY)) result[name] = value;
    }
  }
  return result;
}

/** Requests that may come at once; undefined without a limit on requests. */
export function burstOf(limits: Limits): number | undefined {
  const { requestsPerSecond: rate } = limits;
  return rate === undefined ? undefined : (limits.burst ?? Math.max(1, Math.ceil(rate)));
}

function written(bounds: z.ZodNumber, suffix?: RegExp) {
  const size = z.string().transform((text, context) => {
    const bytes = parseBytes(suffix === undefined ? text : text.replace(suffix, ''));
    if (bytes !== undefined) return bytes;
    context.addIssue({ code: 'custom', message: 'is not a size: write 512, 64KiB or 10MB' });
    return z.NEVER;
  });
  return z.union([z.number(), size]).pipe(bounds);
}
