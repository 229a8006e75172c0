import { arch, cpus, loadavg, platform, totalmem } from 'node:os';
import { LARGE_BYTES, SMALL_BYTES } from './content.ts';
import type { Load, Sample } from './measure.ts';
import { type Cost, costOf, type Share, shareOf, summariseTarget, type TargetSummary } from './summary.ts';
import type { Role } from './tunnel.ts';
import type { Usage } from './usage.ts';
import { CONNECTIONS } from './wrk.ts';

/** Name of the target that is nginx itself. */
export const DIRECT = 'direct';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly node: string;
  /** Mean number of runnable processes in the minute before the run. */
  readonly loadBefore: number;
}

export interface ProcessReport extends Usage, Cost {}

export interface TargetReport {
  readonly name: string;
  readonly summary: TargetSummary;
  /** Compared with nginx itself; undefined for nginx itself. */
  readonly ofDirect?: Share;
  readonly processes?: Readonly<Record<Role, ProcessReport>>;
  readonly samples: readonly Sample[];
}

/** Everything that a run measured. This is what `--json` writes. */
export interface Report {
  readonly date: string;
  readonly machine: Machine;
  readonly load: Load & {
    readonly connections: number;
    readonly smallBytes: number;
    readonly largeBytes: number;
    readonly workers: number;
    readonly built: boolean;
  };
  readonly targets: readonly TargetReport[];
  /** The tunnel of this checkout compared with that of `--against`. */
  readonly ofAgainst?: Share;
}

/** Rounds of one target; `usage` for a tunnel only. */
export interface Measured {
  readonly name: string;
  readonly samples: readonly Sample[];
  readonly usage?: Readonly<Record<Role, Usage>>;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `${platform()} ${arch()}`,
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
  };
}

interface RunFacts {
  readonly machine: Machine;
  readonly load: Load;
  readonly workers: number;
  readonly built: boolean;
}

/** `tunnels`: that of this checkout, then that of `--against` if there is one. */
export function makeReport(facts: RunFacts, direct: Measured, tunnels: readonly Measured[]): Report {
  const [own, against] = tunnels;
  const { rounds, seconds } = facts.load;
  return {
    date: new Date().toISOString(),
    machine: facts.machine,
    load: {
      rounds,
      seconds,
      connections: CONNECTIONS,
      smallBytes: SMALL_BYTES,
      largeBytes: LARGE_BYTES,
      workers: facts.workers,
      built: facts.built,
    },
    targets: [direct, ...tunnels].map((measured) => targetReport(measured, direct)),
    ...(own && against ? { ofAgainst: shareOf(own.samples, against.samples) } : {}),
  };
}

function targetReport({ name, samples, usage }: Measured, direct: Measured): TargetReport {
  const base = { name, summary: summariseTarget(samples), samples };
  if (usage === undefined) return base;
  const processes = {
    core: { ...usage.core, ...costOf(samples, 'core') },
    agent: { ...usage.agent, ...costOf(samples, 'agent') },
  };
  return { ...base, ofDirect: shareOf(samples, direct.samples), processes };
}
