import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { BASE_DOMAIN, CORE_FLAGS, signToken, stateDir } from './tunnel.ts';

/** The same as real processes, for what must be killed or measured apart. */

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
const TSX = import.meta.resolve('tsx');
/** Nothing started here outlives its test by more, milliseconds. */
const LONGEST_RUN = process.env['CULVERT_HEAVY'] === '1' ? 1_800_000 : 180_000;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A running `culvert …`. */
export class CulvertProcess {
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
  stdout = '';
  stderr = '';
  #ended = false;
  #wake: (() => void)[] = [];

  /** @param args command and flags @param env beside PATH and a home of its own */
  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const child = spawn(process.execPath, ['--import', TSX, MAIN, ...args], {
      env: { PATH: process.env['PATH'], HOME: stateDir, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: LONGEST_RUN,
      killSignal: 'SIGKILL',
    });
    this.child = child;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.#notify();
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#notify();
    });
    this.exited = new Promise((resolve) => {
      child.on('close', (code, signal) => {
        this.#ended = true;
        this.#notify();
        resolve({ code, signal, stdout: this.stdout, stderr: this.stderr });
      });
    });
    const stop = (): void => void child.kill('SIGKILL');
    process.once('exit', stop);
    void this.exited.then(() => process.off('exit', stop));
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** The first match in what it has written so far or will write. @throws Error when it ends before */
  async until(stream: 'stdout' | 'stderr', wanted: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = wanted.exec(this[stream]);
      if (found !== null) return found;
      if (this.#ended) throw new Error(`ended before ${wanted}: ${this.stdout}${this.stderr}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Largest resident memory so far, bytes (VmHWM in proc(5)). */
  get peakMemory(): number {
    const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1];
    return Number(kilobytes) * 1024;
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    this.child.kill(signal);
    return this.exited;
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

export interface CoreProcess {
  readonly process: CulvertProcess;
  readonly publicPort: number;
  readonly agentPort: number;
  readonly metricsPort: number;
  readonly dashboardPort: number;
  url(name: string): string;
}

/** `culvert server`, ready. @param flags options by key, over those of `startCore` */
export async function startCoreProcess(flags: Readonly<Record<string, string>> = {}): Promise<CoreProcess> {
  const all = { ...CORE_FLAGS, 'log-requests': 'off', ...flags };
  const core = new CulvertProcess(['server', ...asArguments(all)]);
  const [line] = await core.until('stdout', /^.*"node is ready".*$/m);
  const { publicPort, agentPort, metricsPort, dashboardPort } = JSON.parse(line) as Record<string, number>;
  if (publicPort === undefined || agentPort === undefined || metricsPort === undefined || dashboardPort === undefined) {
    throw new Error(`the ready line lacks a port: ${line}`);
  }
  return {
    process: core,
    publicPort,
    agentPort,
    metricsPort,
    dashboardPort,
    url: (name) => `http://${name}.${BASE_DOMAIN}:${publicPort}`,
  };
}

/** `culvert agent`, serving. @param flags options by key */
export async function startAgentProcess(
  core: { readonly agentPort: number },
  services: Readonly<Record<string, string>>,
  flags: Readonly<Record<string, string>> = {},
): Promise<CulvertProcess> {
  const agent = new CulvertProcess([
    'agent',
    ...asArguments({
      server: `127.0.0.1:${core.agentPort}`,
      token: await signToken(),
      local: Object.entries(services)
        .map(([name, url]) => `${name}=${url}`)
        .join(','),
      connections: '1',
      'reconnect-interval': '300ms',
      'metrics-port': '0',
      'ca-cert': `${stateDir}/tls/ca.crt`,
      'log-requests': 'off',
      ...flags,
    }),
  ]);
  for (const name of Object.keys(services)) await agent.until('stdout', new RegExp(`//${name}\\..* is served`));
  return agent;
}

function asArguments(flags: Readonly<Record<string, string>>): string[] {
  return Object.entries(flags).flatMap(([key, value]) => [`--${key}`, value]);
}
