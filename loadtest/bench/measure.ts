import { LARGE_BYTES, LARGE_PATH, SMALL_PATH } from './content.ts';
import { fetchTimed } from './curl.ts';
import type { Endpoint } from './endpoint.ts';
import type { ProcessGroup } from './processes.ts';
import type { Role, Tunnel } from './tunnel.ts';
import { readUsage } from './usage.ts';
import { runWrk } from './wrk.ts';

/** What is measured in turn: nginx itself, or a tunnel to it. */
export interface Target {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** Undefined for nginx itself. */
  readonly services: Tunnel['services'] | undefined;
}

/** CPU time of the core and the agent, in seconds. Empty for nginx itself. */
type CpuSeconds = Readonly<Partial<Record<Role, number>>>;

/** What one target did in one round. */
export interface Sample {
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  /** Milliseconds. */
  readonly p99: number;
  readonly errors: number;
  readonly requestsCpu: CpuSeconds;
  /** Bytes per second of one large transfer. */
  readonly bytesPerSecond: number;
  readonly transferCpu: CpuSeconds;
}

export interface Load {
  readonly rounds: number;
  /** Length of a round's wrk run. */
  readonly seconds: number;
}

/**
 * Measures the targets in turn, `rounds` times, each round starting with the next target, so that none is always first.
 * Gives the samples of each target by name, in the order of the rounds.
 */
export async function measureRounds(
  processes: ProcessGroup,
  targets: readonly Target[],
  load: Load,
  onRound: (round: number, samples: ReadonlyMap<string, Sample>) => void,
): Promise<Map<string, Sample[]>> {
  const all = new Map<string, Sample[]>(targets.map(({ name }) => [name, []]));
  for (let round = 0; round < load.rounds; round++) {
    const order = rotate(targets, round);
    const requests = new Map<string, Awaited<ReturnType<typeof measureRequests>>>();
    for (const target of order) requests.set(target.name, await measureRequests(processes, target, load.seconds));
    const samples = new Map<string, Sample>();
    for (const target of order) {
      const part = requests.get(target.name);
      if (part === undefined) continue;
      const sample = { ...part, ...(await measureTransfer(processes, target)) };
      samples.set(target.name, sample);
      all.get(target.name)?.push(sample);
    }
    onRound(round + 1, samples);
  }
  return all;
}

async function measureRequests(processes: ProcessGroup, target: Target, seconds: number) {
  const before = cpuOf(target);
  const result = await runWrk(processes, target.endpoint, SMALL_PATH, seconds);
  return { ...result, requestsCpu: since(before, cpuOf(target)) };
}

async function measureTransfer(processes: ProcessGroup, target: Target) {
  const before = cpuOf(target);
  const { bytes, seconds } = await fetchTimed(processes, target.endpoint, LARGE_PATH, LARGE_BYTES);
  return { bytesPerSecond: bytes / seconds, transferCpu: since(before, cpuOf(target)) };
}

function cpuOf({ services }: Target): CpuSeconds {
  if (services === undefined) return {};
  return { core: readUsage(services.core.pid).cpuSeconds, agent: readUsage(services.agent.pid).cpuSeconds };
}

function since(before: CpuSeconds, after: CpuSeconds): CpuSeconds {
  if (before.core === undefined || before.agent === undefined) return {};
  return { core: (after.core ?? 0) - before.core, agent: (after.agent ?? 0) - before.agent };
}

export function rotate<T>(values: readonly T[], by: number): T[] {
  const start = by % values.length;
  return [...values.slice(start), ...values.slice(0, start)];
}
