import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { CulvertError } from '../../shared/errors/codes.ts';
import { type Digests, writeContent } from './content.ts';
import { NGINX, type Nginx, startNginx } from './nginx.ts';
import { ProcessGroup } from './processes.ts';

/** Debian package of each program that the rig runs. */
const PACKAGES: Readonly<Record<string, string>> = { [NGINX]: 'nginx-light', wrk: 'wrk', curl: 'curl' };

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** As in package.json. */
const LEAST_NODE = 26;

/** What every run needs: a folder, the programs, and nginx with its files. */
export interface Rig {
  readonly dir: string;
  readonly processes: ProcessGroup;
  readonly nginx: Nginx;
  readonly digests: Digests;
}

/**
 * Runs `body` with a rig and takes it down after it, whatever happens. On SIGINT, SIGTERM and SIGHUP `body` is aborted; a
 * second one kills what was started and exits at once. Throws CulvertError `invalid_config` when a program is missing or
 * Node is too old.
 */
export async function withRig(workers: number, body: (rig: Rig) => Promise<void>): Promise<void> {
  requirePrograms(process.version);
  const stop = new AbortController();
  const processes = new ProcessGroup(stop.signal);
  const dir = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
  const remove = () => rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  const onSignal = (signal: NodeJS.Signals) => {
    if (stop.signal.aborted) process.exit(exitStatus(signal));
    stop.abort(new Interrupted(signal));
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  // Also for a fault that nothing caught, which skips what is below.
  const onExit = () => {
    processes.killAll();
    remove();
  };
  process.once('exit', onExit);
  try {
    const root = join(dir, 'root');
    const digests = await writeContent(root, stop.signal);
    await body({ dir, processes, nginx: await startNginx(processes, dir, root, workers), digests });
  } finally {
    await processes.stopAll();
    remove();
    for (const signal of SIGNALS) process.off(signal, onSignal);
    process.off('exit', onExit);
  }
}

/** Runs a command of the rig, prints one line for an error and sets the exit status: 1 failed, 2 wrong use. */
export async function runCommand(run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    const interrupted = [error, error instanceof Error ? error.cause : undefined].find((e) => e instanceof Interrupted);
    process.exitCode = interrupted instanceof Interrupted ? exitStatus(interrupted.signal) : statusOf(error);
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
  }
}

class Interrupted extends Error {
  readonly signal: NodeJS.Signals;

  constructor(signal: NodeJS.Signals) {
    super(`stopped by ${signal}`);
    this.signal = signal;
  }
}

/** Throws CulvertError `invalid_config` when a program is missing or Node is older than what Culvert supports. */
export function requirePrograms(nodeVersion: string): void {
  if (Number(/^v(\d+)/.exec(nodeVersion)?.[1]) < LEAST_NODE) {
    const remedy = 'use npm run, which takes the one of node_modules';
    throw new CulvertError('invalid_config', `Node ${nodeVersion} is older than ${LEAST_NODE}: ${remedy}`);
  }
  for (const [program, name] of Object.entries(PACKAGES)) {
    if (!isInstalled(program))
      throw new CulvertError('invalid_config', `${program} is missing: apt-get install ${name}`);
  }
}

function isInstalled(program: string): boolean {
  if (program.startsWith('/')) return existsSync(program);
  const { PATH = '' } = process.env;
  return PATH.split(delimiter).some((folder) => existsSync(join(folder, program)));
}

function statusOf(error: unknown): number {
  return error instanceof CulvertError && error.code === 'invalid_config' ? 2 : 1;
}

function exitStatus(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
