import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { until } from './eventually.ts';
import { freePort } from './local-service.ts';

export interface RedisServer {
  readonly port: number;
  readonly url: string;
  /** For the test's own questions; reconnects by itself. */
  readonly client: Redis;
  /** Freezes the process: connections stay open and nothing answers. */
  pause(): void;
  resume(): void;
  /** Ends it as a crash would, losing what is not on disk. */
  kill(): Promise<void>;
  /** Starts it again on the same port, with what is on disk. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export interface RedisGroup {
  readonly servers: readonly RedisServer[];
  close(): Promise<void>;
}

/** A Redis Cluster of three masters. */
export function startRedisCluster(): Promise<RedisGroup> {
  return together(async (start) => {
    const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '1000'];
    const servers = await Promise.all([start(args), start(args), start(args)]);
    const addresses = servers.map(({ port }) => `127.0.0.1:${port}`);
    await promisify(execFile)('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-yes'], { timeout: 20_000 });
    for (const { client } of servers) {
      await until('the cluster is whole', async () =>
        String(await client.cluster('INFO')).includes('cluster_state:ok'),
      );
    }
    return {};
  });
}

export interface SentinelGroup extends RedisGroup {
  /** The sentinel's name of the master. */
  readonly name: string;
  readonly sentinel: { readonly host: string; readonly port: number };
  readonly master: RedisServer;
  readonly replica: RedisServer;
}

/** A master, its replica, and one sentinel that promotes the replica half a second after the master went. */
export function startRedisSentinel(): Promise<SentinelGroup> {
  return together(async (start) => {
    const master = await start(['--repl-diskless-sync-delay', '0']);
    const replica = await start(['--replicaof', '127.0.0.1', `${master.port}`]);
    await until('the replica is in step', async () =>
      (await replica.client.info('replication')).includes('master_link_status:up'),
    );
    const name = 'culvert';
    const sentinel = await start(
      ['--sentinel'],
      `sentinel monitor ${name} 127.0.0.1 ${master.port} 1
sentinel down-after-milliseconds ${name} 500
sentinel failover-timeout ${name} 3000
`,
    );
    await until(
      'the sentinel knows the replica',
      async () => JSON.stringify(await sentinel.client.call('SENTINEL', 'REPLICAS', name)).includes(`${replica.port}`),
      15_000,
    );
    return { name, master, replica, sentinel: { host: '127.0.0.1', port: sentinel.port } };
  });
}

/** Starts several servers, of which none is left when one of the steps fails. */
async function together<T>(steps: (start: typeof startRedis) => Promise<T>): Promise<T & RedisGroup> {
  const servers: RedisServer[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.close()));
  };
  try {
    const made = await steps(async (...args) => {
      const server = await startRedis(...args);
      servers.push(server);
      return server;
    });
    return { ...made, servers, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A free port so low that 10,000 above it, where Redis Cluster puts its bus, is one too. */
async function portWithBus(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port < 55_000) return port;
  }
}

/**
 * A real redis-server on a free port of the loopback, in a directory of its own.
 * @param args further `--option value`
 * @param configuration text of a configuration file to start from
 */
export async function startRedis(args: readonly string[] = [], configuration?: string): Promise<RedisServer> {
  const home = mkdtempSync(join(tmpdir(), 'culvert-redis-'));
  const port = await portWithBus();
  const file = join(home, 'redis.conf');
  if (configuration !== undefined) writeFileSync(file, configuration);
  const client = new Redis({ port, host: '127.0.0.1', retryStrategy: () => 50, lazyConnect: true });
  client.on('error', () => {});
  let child: ChildProcess;
  let exited: Promise<unknown>;

  const run = async (): Promise<void> => {
    const sentinel = args.includes('--sentinel');
    const options = ['--port', `${port}`, '--bind', '127.0.0.1', '--dir', home, '--loglevel', 'warning'];
    if (!sentinel) options.push('--save', '');
    if (configuration !== undefined) options.unshift(file);
    let messages = '';
    child = spawn('redis-server', [...options, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout?.on('data', (chunk: Buffer) => {
      messages += chunk.toString();
    });
    exited = once(child, 'exit');
    await until('redis-server answers', async () => {
      if (child.exitCode !== null) throw new Error(`redis-server ended: ${messages}`);
      return (await client.ping().catch(() => '')) === 'PONG';
    });
  };
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  const cleanUp = (): void => {
    child.kill('SIGKILL');
    rmSync(home, { recursive: true, force: true });
  };
  process.once('exit', cleanUp);
  await run();
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    client,
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    kill,
    restart: run,
    async close() {
      process.off('exit', cleanUp);
      client.disconnect();
      cleanUp();
      await exited;
    },
  };
}
