import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, TestCluster } from './cluster-kit.ts';
import { Load } from './load.ts';

/** One measurement, milliseconds: several renewals of the lease, which come each 1.7 s. */
const WINDOW = pauseOf(5000, 30_000);
const TUNNELS = ['a', 'b', 'c'];

test('requests to known names cost Redis nothing', { timeout: 120_000 }, async (t) => {
  const redis = await startRedis();
  t.after(() => redis.close());
  const cluster = await TestCluster.start({ redis, address: { kind: 'single', url: redis.url }, nodes: 2 });
  t.after(() => cluster.close());
  await cluster.addAgents(TUNNELS);
  const commands = async (): Promise<number> => {
    const count = async (): Promise<number> => {
      const stats = await redis.client.info('commandstats');
      return [...stats.matchAll(/calls=(\d+)/g)].reduce((sum, [, calls]) => sum + Number(calls), 0);
    };
    const before = await count();
    await wait(WINDOW);
    return (await count()) - before;
  };
  const idle = await commands();
  const load = new Load(cluster.balancer, TUNNELS, 4);
  t.after(() => load.stop());
  await until('there is traffic', () => load.outcomes.length > 50, 20_000);
  const before = load.outcomes.length;
  const busy = await commands();
  const requests = load.outcomes.length - before;
  t.diagnostic(`${idle} commands without requests, ${busy} with ${requests}`);
  assert.deepEqual(load.faults(), []);
  assert.ok(requests > 500, `only ${requests} requests`);
  // A renewal more or less falls into the window: one for each registry, each with 16 probes of a few commands.
  assert.ok(busy < idle * 1.6, `${idle} commands without requests, ${busy} with ${requests}`);
  assert.ok(busy - idle < requests, `${busy - idle} commands for ${requests} requests`);
});
