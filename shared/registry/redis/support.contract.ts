import type { Redis } from 'ioredis';
import { createLogger } from '../../observability/logger.ts';
import type { RedisAddress } from '../../redis/connection.ts';
import { until } from '../../testkit/eventually.ts';
import type { NodeId } from '../registry.ts';
import { metaKey, NODE_KEYS, SHARDS } from './keys.ts';
import { createRedisRegistry, type RedisRegistry, type RedisRegistryOptions } from './redis-registry.ts';

/** Milliseconds. Short, so that tests of death and recovery are quick. */
export const LEASE = 600;

const silent = createLogger({ name: 'test', level: 'silent' });

/** A registry that takes claims. */
export async function openRegistry(
  nodeId: string,
  redis: RedisAddress,
  options: Partial<RedisRegistryOptions> = {},
): Promise<RedisRegistry> {
  const registry = createRedisRegistry({
    redis,
    nodeId: nodeId as NodeId,
    logger: silent,
    lease: LEASE,
    commandTimeout: 500,
    ...options,
  });
  await usable(registry);
  return registry;
}

export async function usable(registry: RedisRegistry): Promise<void> {
  await until('the registry takes claims', () => registry.unavailable() === undefined);
}

/** Empties a Redis and marks every shard as open, as a cluster that has run for a while has it. */
export async function emptyButOpen(masters: readonly Redis[]): Promise<void> {
  for (const master of masters) {
    await master.flushall();
    const run = /run_id:(\w+)/.exec(await master.info('server'))?.[1] ?? '';
    const keys = [...Array.from({ length: SHARDS }, (_, shard) => metaKey(shard)), NODE_KEYS.meta];
    for (const key of keys) {
      // A master of a Cluster takes the keys of its own slots only.
      await master.hset(key, { gen: 'test', run, open: 0, since: 0 }).catch((error: Error) => {
        if (!error.message.startsWith('MOVED')) throw error;
      });
    }
  }
}
