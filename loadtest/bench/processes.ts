import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CulvertError } from '../../shared/errors/codes.ts';

/** Time to end after SIGTERM before SIGKILL, in milliseconds. Writing a CPU profile takes a part of it. */
const STOP_MS = 8000;
/** Time between looks at a log file, in milliseconds. */
const POLL_MS = 25;
/** Most text kept of a captured command. */
const CAPTURE_BYTES = 1024 * 1024;
/** Most text of a failed process in an error. */
const TAIL_CHARACTERS = 1500;

export interface SpawnOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** File for what the process prints. A file, since a pipe would cost the rig time for each line. */
  readonly logFile: string;
}

/** A long-running process of the rig. */
export interface Service {
  readonly name: string;
  readonly pid: number;
  /** What it printed so far. */
  output(): string;
  /** Ends it: SIGTERM, then SIGKILL. Resolves when it is gone. */
  stop(): Promise<void>;
}

/** All processes of one run: what is started here is ended by `stopAll`, and nothing else is. */
export class ProcessGroup {
  readonly #running = new Set<ChildProcess>();
  readonly #signal: AbortSignal;

  /** Once `signal` aborts, commands that run are ended, what waits rejects and nothing is started any more. */
  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Starts a process that runs until it is stopped. Throws CulvertError `internal_error` when it cannot be started. */
  async start(name: string, command: string, args: readonly string[], options: SpawnOptions): Promise<Service> {
    this.#signal.throwIfAborted();
    const log = openSync(options.logFile, 'w');
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: options.env,
      stdio: ['ignore', log, log],
      detached: true,
    });
    closeSync(log);
    this.#track(child);
    await once(child, 'spawn').catch((error: unknown) => {
      throw new CulvertError('internal_error', `${name} cannot be started`, { cause: error });
    });
    const output = () => readFileSync(options.logFile, 'utf8');
    return { name, pid: pidOf(child), output, stop: () => stop(child) };
  }

  /**
   * Calls `find` until it gives a value. Throws CulvertError `internal_error` with the end of the log when the process
   * ends before, `timeout` after `limitMs`.
   */
  async waitFor<T>(
    service: Service,
    what: string,
    limitMs: number,
    find: () => Promise<T | undefined> | T | undefined,
  ) {
    const deadline = Date.now() + limitMs;
    for (;;) {
      const found = await find();
      if (found !== undefined) return found;
      const tail = service.output().trim().slice(-TAIL_CHARACTERS);
      if (!this.#isRunning(service)) throw new CulvertError('internal_error', `${service.name} ended: ${tail}`);
      if (Date.now() > deadline) throw new CulvertError('timeout', `${service.name}: no ${what} in time: ${tail}`);
      await sleep(POLL_MS, undefined, { signal: this.#signal });
    }
  }

  /** Runs a command to its end and gives what it printed. Throws CulvertError `internal_error` and `timeout`. */
  async capture(command: string, args: readonly string[], limitMs: number, cwd?: string): Promise<string> {
    let text = '';
    const complaint = await this.#run(command, args, limitMs, cwd, (chunk) => {
      if (text.length < CAPTURE_BYTES) text += chunk.toString('utf8');
    });
    // Compilers complain on standard output.
    if (complaint !== undefined) throw failed(command, complaint || text);
    return text;
  }

  /** As `capture`, for a command that prints much: SHA-256 of it, in hex. */
  async digest(command: string, args: readonly string[], limitMs: number): Promise<string> {
    const hash = createHash('sha256');
    const complaint = await this.#run(command, args, limitMs, undefined, (chunk) => hash.update(chunk));
    if (complaint !== undefined) throw failed(command, complaint);
    return hash.digest('hex');
  }

  /** Ends every process that was started here and still runs. */
  async stopAll(): Promise<void> {
    await Promise.all([...this.#running].map(stop));
  }

  /** Ends them now, without a chance to clean up. */
  killAll(): void {
    for (const child of this.#running) kill(child, 'SIGKILL');
  }

  /** Resolves with undefined after success, else with what the command wrote to standard error. */
  async #run(
    command: string,
    args: readonly string[],
    limitMs: number,
    cwd: string | undefined,
    onChunk: (chunk: Buffer) => void,
  ): Promise<string | undefined> {
    this.#signal.throwIfAborted();
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(limitMs)]);
    const child = spawn(command, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    this.#track(child);
    let complaint = '';
    child.stdout.on('data', onChunk);
    child.stderr.on('data', (chunk: Buffer) => {
      complaint = (complaint + chunk.toString('utf8')).slice(-TAIL_CHARACTERS);
    });
    const onAbort = () => kill(child, 'SIGKILL');
    signal.addEventListener('abort', onAbort);
    try {
      await once(child, 'close');
    } catch (error) {
      throw new CulvertError('internal_error', `${command} cannot be run`, { cause: error });
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
    this.#signal.throwIfAborted();
    if (signal.aborted) throw new CulvertError('timeout', `${command} took longer than ${limitMs} ms`);
    return child.exitCode === 0 ? undefined : complaint;
  }

  #track(child: ChildProcess): void {
    this.#running.add(child);
    const forget = () => this.#running.delete(child);
    child.once('exit', forget);
    child.on('error', () => {
      if (child.pid === undefined) forget();
    });
  }

  #isRunning(service: Service): boolean {
    return [...this.#running].some((child) => child.pid === service.pid);
  }
}

function pidOf(child: ChildProcess): number {
  if (child.pid === undefined) throw new CulvertError('internal_error', 'a process ended as it was started');
  return child.pid;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  const timer = setTimeout(() => kill(child, 'SIGKILL'), STOP_MS);
  kill(child, 'SIGTERM');
  await gone;
  clearTimeout(timer);
}

/**
 * Every process leads a group of its own, so that Ctrl+C in a terminal reaches only the rig, which then ends them in
 * order, and so that SIGKILL reaches the workers of nginx as well.
 */
function kill(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(signal === 'SIGKILL' ? -child.pid : child.pid, signal);
  } catch {
    // It ended just now.
  }
}

function failed(command: string, text: string): CulvertError {
  return new CulvertError('internal_error', `${command} failed: ${text.trim().slice(0, TAIL_CHARACTERS)}`);
}
