import { z } from 'zod';

/** The parts of V8's .cpuprofile that are read here (Chrome DevTools Protocol, Profiler.Profile). */
const Profile = z.object({
  nodes: z.array(
    z.object({
      id: z.number(),
      callFrame: z.object({ functionName: z.string(), url: z.string() }),
      children: z.array(z.number()).optional(),
    }),
  ),
  /** Microseconds of the monotonic clock, which is one for all processes of a machine. */
  startTime: z.number(),
  samples: z.array(z.number()),
  /** Microseconds since the sample before. */
  timeDeltas: z.array(z.number()),
});
export type CpuProfile = z.infer<typeof Profile>;

/** Throws z.ZodError or SyntaxError for anything else than a profile. */
export function parseProfile(text: string): CpuProfile {
  return Profile.parse(JSON.parse(text));
}

/** Microseconds of the monotonic clock. */
export interface Period {
  readonly from: number;
  readonly to: number;
}

export interface HotSpot {
  readonly functionName: string;
  /** Path from the checkout, `node:…`, or empty for the engine's own. */
  readonly file: string;
  /** Share of the busy time in the function itself, 0 to 1. */
  readonly self: number;
  /** Share of the busy time in the function and what it calls, 0 to 1. */
  readonly total: number;
}

export interface ProfileSummary {
  /** Share of the period in which the main thread was not idle, 0 to 1. */
  readonly busy: number;
  /** By function and file, most self time first. */
  readonly spots: readonly HotSpot[];
}

const IDLE = '(idle)';
const SEPARATOR = '\0';

/**
 * Where the main thread spent a period. Start-up outside it would otherwise be a large part of a short profile. `root` is
 * the folder that paths are shown relative to.
 */
export function summarise(profile: CpuProfile, period: Period, root: string): ProfileSummary {
  const stacks = stackKeys(profile, root);
  const self = new Map<string, number>();
  const total = new Map<string, number>();
  let elapsed = 0;
  let busy = 0;
  let now = profile.startTime;
  for (const [index, id] of profile.samples.entries()) {
    const delta = profile.timeDeltas[index + 1] ?? 0;
    now += profile.timeDeltas[index] ?? 0;
    const stack = stacks.get(id);
    const own = stack?.[0];
    if (stack === undefined || own === undefined || now < period.from || now > period.to || delta <= 0) continue;
    elapsed += delta;
    if (own.startsWith(IDLE)) continue;
    busy += delta;
    add(self, own, delta);
    // A set, so that a recursive function is counted once.
    for (const key of new Set(stack)) add(total, key, delta);
  }
  const spots = [...total.entries()].map(([key, time]) => {
    const [functionName = '', file = ''] = key.split(SEPARATOR);
    return { functionName, file, self: share(self.get(key) ?? 0, busy), total: share(time, busy) };
  });
  return { busy: share(busy, elapsed), spots: spots.toSorted((a, b) => b.self - a.self) };
}

/** For each node, the keys of its function and of all that called it, innermost first. */
function stackKeys(profile: CpuProfile, root: string): Map<number, string[]> {
  const parents = new Map<number, number>();
  const keys = new Map<number, string>();
  for (const { id, callFrame, children = [] } of profile.nodes) {
    for (const child of children) parents.set(child, id);
    keys.set(id, `${callFrame.functionName || '(anonymous)'}${SEPARATOR}${shortFile(callFrame.url, root)}`);
  }
  const stacks = new Map<number, string[]>();
  for (const { id } of profile.nodes) {
    const stack: string[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) stack.push(keys.get(at) ?? '');
    stacks.set(id, stack);
  }
  return stacks;
}

function shortFile(url: string, root: string): string {
  const path = url.replace(/^file:\/\//, '').replace(/\?.*$/, '');
  return path.startsWith(`${root}/`) ? path.slice(root.length + 1) : path;
}

function add(map: Map<string, number>, key: string, value: number): void {
  map.set(key, (map.get(key) ?? 0) + value);
}

function share(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}
