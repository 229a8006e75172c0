import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { until } from './eventually.ts';
import { freePort } from './local-service.ts';

/** The real HAProxy with the configuration of this project. */
export interface HaproxyServer {
  /** Plain HTTP of visitors. */
  readonly httpPort: number;
  /** HTTPS of visitors, when `certificates` were given. */
  readonly httpsPort: number;
  readonly agentsPort: number;
  readonly operatorsPort: number;
  readonly adminSocket: string;
  /** The directory of the maps and of the servers' state. */
  readonly stateDir: string;
  readonly log: string;
  /** Takes one command of the runtime API. */
  command(line: string): Promise<string>;
  /** A new worker takes over the listeners; resolves when it answers. */
  reload(): Promise<void>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
  /** Starts it again on the same ports. */
  start(): Promise<void>;
  close(): Promise<void>;
}

/** Debian's place, which is not in everybody's PATH; or another version, to see that it takes the configuration too. */
const HAPROXY = process.env['HAPROXY'] ?? '/usr/sbin/haproxy';
/** A reload that shows nothing for so long was not heard, milliseconds. */
const SIGNAL_AGAIN = 5000;
export const HAPROXY_CONFIG = fileURLToPath(new URL('../../haproxy/haproxy.cfg', import.meta.url));

/** @param env what haproxy/README.md lists, over free ports of the loopback and a directory of its own */
export async function startHaproxy(env: Readonly<Record<string, string>> = {}): Promise<HaproxyServer> {
  const home = mkdtempSync(join(tmpdir(), 'culvert-haproxy-'));
  const stateDir = env['CULVERT_STATE_DIR'] ?? join(home, 'state');
  mkdirSync(stateDir, { recursive: true });
  for (const map of ['owners.map', 'nodes.map']) writeFileSync(join(stateDir, map), '', { flag: 'a' });
  writeFileSync(join(stateDir, 'servers.state'), '1\n', { flag: 'a' });
  const adminSocket = join(home, 'admin.sock');
  const httpPort = await freePort();
  const httpsPort = await freePort();
  const agentsPort = await freePort();
  const operatorsPort = await freePort();
  const variables = {
    CULVERT_HTTP_BIND: `127.0.0.1:${httpPort}`,
    CULVERT_HTTPS_BIND: `127.0.0.1:${httpsPort}`,
    CULVERT_AGENTS_BIND: `127.0.0.1:${agentsPort}`,
    CULVERT_OPERATORS_BIND: `127.0.0.1:${operatorsPort}`,
    CULVERT_ADMIN_SOCKET: adminSocket,
    CULVERT_STATE_DIR: stateDir,
    CULVERT_LOG: 'stderr',
    ...env,
  };
  let child: ChildProcess | undefined;
  let exited: Promise<unknown> = Promise.resolve();
  let log = '';

  const command = (line: string): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect({ path: adminSocket });
      let answer = '';
      socket.setEncoding('utf8').on('data', (piece: string) => {
        answer += piece;
      });
      socket.on('error', reject);
      socket.on('close', () => resolve(answer));
      socket.write(`${line}\n`);
    });
  const pid = async (): Promise<string> => /^Pid: (\d+)/m.exec(await command('show info').catch(() => ''))?.[1] ?? '';
  const start = async (): Promise<void> => {
    const started = spawn(HAPROXY, ['-W', '-f', HAPROXY_CONFIG], {
      env: { PATH: process.env['PATH'], ...variables },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    started.stderr.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    child = started;
    exited = once(started, 'exit');
    await until('haproxy answers', async () => {
      if (started.exitCode !== null) throw new Error(`haproxy ended: ${log}`);
      return (await pid()) !== '';
    });
  };
  // The master ends its workers on SIGTERM; on SIGKILL they see it go and end too.
  const kill = async (): Promise<void> => {
    const worker = await pid();
    child?.kill('SIGKILL');
    if (worker !== '') killProcess(Number(worker));
    await exited;
  };
  const cleanUp = (): void => {
    child?.kill('SIGTERM');
    rmSync(home, { recursive: true, force: true });
  };
  process.once('exit', cleanUp);
  try {
    await start();
  } catch (error) {
    cleanUp();
    throw error;
  }
  return {
    httpPort,
    httpsPort,
    agentsPort,
    operatorsPort,
    adminSocket,
    stateDir,
    get log() {
      return log;
    },
    command,
    async reload() {
      const before = await pid();
      const read = log.length;
      let asked = Number.NEGATIVE_INFINITY;
      await until(
        'the new worker answers',
        async () => {
          // A master that is still busy with its start, or with the reload before, can miss the signal.
          if (performance.now() - asked > SIGNAL_AGAIN) {
            asked = performance.now();
            child?.kill('SIGUSR2');
          }
          return ![before, ''].includes(await pid());
        },
        40_000,
      );
      // Until then the master does not hear the next signal.
      await until('the master is done', () => log.slice(read).includes('Loading success'), 20_000);
    },
    kill,
    start,
    async close() {
      process.off('exit', cleanUp);
      child?.kill('SIGTERM');
      await exited;
      cleanUp();
    },
  };
}

/** What `haproxy -c` says of the configuration; warnings count as faults. */
export async function checkHaproxyConfig(
  env: Readonly<Record<string, string>>,
): Promise<{ readonly isValid: boolean; readonly output: string }> {
  const checked = promisify(execFile)(HAPROXY, ['-c', '-dW', '-f', HAPROXY_CONFIG], {
    env: { PATH: process.env['PATH'], ...env },
    timeout: 20_000,
  });
  return checked.then(
    ({ stdout, stderr }) => ({ isValid: true, output: stdout + stderr }),
    (error: unknown) => ({ isValid: false, output: String(error) }),
  );
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It went with its master.
  }
}
