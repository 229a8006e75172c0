import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import type { RedisAddress } from '../../../shared/redis/connection.ts';
import { until } from '../../../shared/testkit/eventually.ts';
import { type RedisServer, startRedisCluster, startRedisSentinel } from '../../../shared/testkit/redis-server.ts';
import { connect } from '../../agent/index.ts';
import { agentOptions, pauseOf, TestCluster } from './cluster-kit.ts';
import { Load } from './load.ts';

const TUNNELS = ['a', 'b', 'c'];
/** Slots that are moved: some of the 16 shards lie in them. */
const SLOTS = pauseOf(2500, 5000);
/** Until claims are taken again, milliseconds: the failover, a lease of 5 s, and the machine's share. */
const CLAIMS_AGAIN = 30_000;
const options = { timeout: pauseOf(120_000, 300_000) };

/** Two nodes with agents under load. */
async function underLoad(t: TestContext, redis: string, address: RedisAddress) {
  const cluster = await TestCluster.start({ redis, address, nodes: 2 });
  t.after(() => cluster.close());
  const agents = await cluster.addAgents(TUNNELS);
  // A new Redis takes no claims for one lease, which the first agents are told.
  for (const agent of agents) agent.losses.splice(0);
  const load = new Load(cluster.balancer, TUNNELS, 1);
  t.after(() => load.stop());
  await until('there is traffic', () => load.outcomes.length > 100, 20_000);
  const since = performance.now();
  return {
    cluster,
    async assertUntouched(): Promise<void> {
      const agent = connect(await agentOptions(cluster.balancer.agentPort, 'late', 'http://127.0.0.1:9', 'late'));
      let isServed = false;
      agent.on('tunnel', () => {
        isServed = true;
      });
      await until('a claim is taken', () => isServed, CLAIMS_AGAIN);
      await agent.close(0);
      await cluster.settled();
      assert.deepEqual(load.faults(since), []);
      for (const each of agents) assert.deepEqual(each.losses, [], `${each.tunnel} lost a session`);
      for (const tunnel of TUNNELS) assert.equal(cluster.route(tunnel)?.accountId, `account-${tunnel}`);
    },
  };
}

test('a failover to the replica under load fails no request and loses no session', options, async (t) => {
  const group = await startRedisSentinel();
  t.after(() => group.close());
  const url = `redis+sentinel://127.0.0.1:${group.sentinel.port}/${group.name}`;
  const address = { kind: 'sentinel', sentinels: [group.sentinel], name: group.name } as const;
  const { cluster, assertUntouched } = await underLoad(t, url, address);
  await group.master.kill();
  await until('the loss is seen', () => cluster.onlooker.unavailable() !== undefined, 10_000);
  await assertUntouched();
  assert.match(await group.replica.client.info('replication'), /role:master/);
});

test('moving slots of a Redis Cluster under load fails no request and loses no session', options, async (t) => {
  const group = await startRedisCluster();
  t.after(() => group.close());
  const url = `redis+cluster://${group.servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
  const { assertUntouched } = await underLoad(t, url, { kind: 'cluster', urls: group.servers.map((each) => each.url) });
  const [from, to] = group.servers;
  assert.ok(from !== undefined && to !== undefined);
  const before = (await to.client.keys('culvert:*:meta')).length;
  await promisify(execFile)(
    'redis-cli',
    [
      ...['--cluster', 'reshard', `127.0.0.1:${from.port}`, '--cluster-yes', '--cluster-slots', `${SLOTS}`],
      ...['--cluster-from', await idOf(from), '--cluster-to', await idOf(to)],
    ],
    { timeout: 60_000, maxBuffer: 16 * 1024 ** 2 },
  );
  assert.ok((await to.client.keys('culvert:*:meta')).length > before, 'no shard was moved');
  await assertUntouched();
});

async function idOf(server: RedisServer): Promise<string> {
  return String(await server.client.cluster('MYID'));
}
