import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { promisify } from 'node:util';
import { until } from '../../../shared/testkit/eventually.ts';
import { type RedisServer, startRedisCluster, startRedisSentinel } from '../../../shared/testkit/redis-server.ts';
import { connect } from '../../agent/index.ts';
import { agentOptions, TestCluster, type TestClusterOptions } from './cluster-kit.ts';
import { Load } from './load.ts';

/** A failover is noticed, a new generation begins, and the nodes publish what they hold: a few leases. */
const CLAIMS_OPEN = 45_000;

interface Scene {
  readonly cluster: TestCluster;
  readonly load: Load;
  /** No request failed and no session was lost; a new agent gets its name. */
  unharmed(): Promise<void>;
}

async function startScene(t: TestContext, redis: Pick<TestClusterOptions, 'redis' | 'address'>): Promise<Scene> {
  const cluster = await TestCluster.start(redis);
  t.after(() => cluster.close());
  await cluster.addAgents(['a', 'b', 'c']);
  const load = new Load(
    cluster.balancer,
    cluster.agents.map(({ tunnel }) => tunnel),
  );
  t.after(() => load.stop());
  await until('there is traffic', () => load.outcomes.length > 200);
  const losses = cluster.agents.map((agent) => agent.losses.length);
  const unharmed = async (): Promise<void> => {
    const options = await agentOptions(cluster.balancer.agentPort, 'new', 'http://127.0.0.1:9', 'newcomer');
    const agent = connect(options);
    try {
      await until('a new agent has its name', () => agent.publicUrls.size === 1, CLAIMS_OPEN);
    } finally {
      await agent.close(0);
    }
    await cluster.settled();
    assert.deepEqual(load.faults(), []);
    assert.deepEqual(
      cluster.agents.map((agent) => agent.losses.length),
      losses,
    );
  };
  return { cluster, load, unharmed };
}

describe('three nodes under load', { timeout: 170_000 }, () => {
  test('lose nothing when the Redis master dies and Sentinel promotes its replica', async (t) => {
    const group = await startRedisSentinel();
    t.after(() => group.close());
    const { sentinel, name } = group;
    const scene = await startScene(t, {
      redis: `redis+sentinel://127.0.0.1:${sentinel.port}/${name}`,
      address: { kind: 'sentinel', sentinels: [sentinel], name },
    });
    await group.master.kill();
    await until(
      'the replica is the master',
      async () => (await group.replica.client.info('replication')).includes('role:master'),
      15_000,
    );
    await scene.unharmed();
  });

  test('lose nothing while a Redis Cluster moves slots from one master to another', async (t) => {
    const group = await startRedisCluster();
    t.after(() => group.close());
    const urls = group.servers.map(({ url }) => url);
    const scene = await startScene(t, {
      redis: `redis+cluster://${urls.map((url) => url.replace('redis://', '')).join(',')}`,
      address: { kind: 'cluster', urls },
    });
    const [from, to] = group.servers;
    assert.ok(from !== undefined && to !== undefined);
    const before = await keysOf(to);
    await promisify(execFile)(
      'redis-cli',
      [
        ...['--cluster', 'reshard', `127.0.0.1:${from.port}`, '--cluster-yes'],
        ...['--cluster-from', await idOf(from), '--cluster-to', await idOf(to), '--cluster-slots', '5461'],
      ],
      { timeout: 90_000, maxBuffer: 64 * 1024 * 1024 },
    );
    assert.equal(await keysOf(from), 0, 'not all moved');
    assert.ok((await keysOf(to)) > before, 'nothing moved');
    await wait(2000);
    await scene.unharmed();
  });
});

async function idOf(server: RedisServer): Promise<string> {
  return String(await server.client.cluster('MYID'));
}

function keysOf(server: RedisServer): Promise<number> {
  return server.client.dbsize();
}
