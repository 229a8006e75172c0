import type { Redis } from 'ioredis';
import { createLogger } from '../../observability/logger.ts';
import type { RedisAddress } from '../../redis/connection.ts';
import { until } from '../../testkit/eventually.ts';
import type { DirectoryFixture, FixtureOptions } from '../contract/support.contract.ts';
import { KEYS } from './keys.ts';
import { createRedisDirectory, type RedisDirectory, type RedisDirectoryOptions } from './redis-directory.ts';

/** Milliseconds. Short, so that tests of loss and recovery are quick. */
export const WINDOW = 600;
export const INTERVAL = 200;

const silent = createLogger({ name: 'test', level: 'silent' });

/** A directory that takes changes. */
export async function openDirectory(
  redis: RedisAddress,
  options: Partial<RedisDirectoryOptions> = {},
): Promise<RedisDirectory> {
  const directory = createRedisDirectory({
    redis,
    logger: silent,
    interval: INTERVAL,
    window: WINDOW,
    commandTimeout: 500,
    ...options,
  });
  await usable(directory);
  return directory;
}

export async function usable(directory: RedisDirectory): Promise<void> {
  await until('the directory takes changes', () => directory.unavailable() === undefined, 15_000);
}

/** Empties a Redis and marks the directory as open, as a cluster that has run for a while has it. */
export async function emptyButOpen(masters: readonly Redis[]): Promise<void> {
  for (const master of masters) {
    await master.flushall();
    const run = /run_id:(\w+)/.exec(await master.info('server'))?.[1] ?? '';
    // A master of a Cluster takes the keys of its own slots only.
    await master.hset(KEYS[0], { gen: 'test', run, open: 0, since: 0, count: 0 }).catch((error: Error) => {
      if (!error.message.startsWith('MOVED')) throw error;
    });
  }
}

/** Two nodes on an empty store. */
export async function twoNodes(redis: RedisAddress, options: FixtureOptions): Promise<DirectoryFixture> {
  const [a, b] = await Promise.all([openDirectory(redis, options), openDirectory(redis, options)]);
  return {
    a,
    b,
    settled: async () => {
      await Promise.all([a.caughtUp(), b.caughtUp()]);
    },
    close: async () => {
      await Promise.all([a.close(), b.close()]);
    },
  };
}
