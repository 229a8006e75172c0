import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { percentile } from '../../../shared/testkit/statistics.ts';
import { connect } from '../../agent/index.ts';
import { agentOptions, pauseOf, type TestAgent, TestCluster } from './cluster-kit.ts';
import { Load } from './load.ts';

/** How long Redis is away, or slow, milliseconds. Usually more than the lease of a node, 5 s. */
const AWAY = pauseOf(5500, 60_000);
/** Until claims are taken again after data was lost, milliseconds: a lease, 5 s, the next renewal, and the machine's share. */
const CLAIMS_AGAIN = 15_000;
const TUNNELS = ['a', 'b', 'c', 'd'];

describe('three nodes under load whose Redis', { timeout: pauseOf(150_000, 900_000) }, () => {
  let redis: RedisServer;
  let cluster: TestCluster;
  let agents: TestAgent[];
  let load: Load;

  before(async () => {
    redis = await startRedis();
    cluster = await TestCluster.start({ redis, address: { kind: 'single', url: redis.url } });
    agents = await cluster.addAgents(TUNNELS);
    // A new Redis takes no claims for one lease, which the first agents are told.
    for (const agent of agents) agent.losses.splice(0);
    load = new Load(cluster.balancer, TUNNELS, 1);
    await until('there is traffic', () => load.outcomes.length > 200, 20_000);
  });
  after(async () => {
    redis?.resume();
    await load?.stop();
    await cluster?.close();
    await redis?.close();
  });

  /** An agent that asks for a name of its own; it has to come in without being started again. */
  async function newcomer(name: string): Promise<{ codes: string[]; ready: Promise<void>; close(): Promise<void> }> {
    const agent = connect(
      await agentOptions(cluster.balancer.agentPort, name, 'http://127.0.0.1:9', `account-${name}`),
    );
    const codes: string[] = [];
    agent.on('disconnected', ({ error }) => codes.push(error.code));
    return { codes, ready: agent.ready, close: () => agent.close(0) };
  }

  /** Asks for everybody's names, again and again, as another account. @returns what ends it and tells what it got */
  async function thief(): Promise<() => Promise<readonly string[]>> {
    const got: string[] = [];
    let asked = 0;
    let isOver = false;
    const options = await agentOptions(cluster.balancer.agentPort, 'thief', '', 'account-thief', {
      tunnels: TUNNELS.map((name) => ({ name, url: 'http://127.0.0.1:9' })),
      connections: 1,
      reconnectInterval: 100,
    });
    const trying = (async () => {
      while (!isOver) {
        const agent = connect(options);
        agent.on('tunnel', ({ name }) => got.push(name));
        let refused = 0;
        agent.on('refused', () => {
          refused += 1;
          asked += 1;
        });
        const ended = Promise.withResolvers<void>();
        agent.on('refused', () => refused === TUNNELS.length && ended.resolve());
        await Promise.race([ended.promise, wait(1000)]);
        await agent.close(0);
      }
    })();
    return async () => {
      isOver = true;
      await trying;
      assert.ok(asked > 0, 'the thief was never heard');
      return got;
    };
  }

  async function claimsWork(name: string, since: number): Promise<number> {
    const agent = await newcomer(name);
    await agent.ready;
    await agent.close();
    return performance.now() - since;
  }

  function assertUntouched(since: number): void {
    assert.deepEqual(load.faults(since), []);
    for (const agent of agents) assert.deepEqual(agent.losses, [], `${agent.tunnel} lost a session`);
  }

  test('stands still: tunnels serve on, claims are refused and then taken without a restart', async () => {
    const since = performance.now();
    redis.pause();
    await until('the nodes know', () => cluster.onlooker.unavailable() !== undefined);
    const late = await newcomer('late-1');
    await wait(AWAY);
    assert.ok(late.codes.length > 0);
    assert.deepEqual([...new Set(late.codes)], ['registry_unavailable']);
    redis.resume();
    await late.ready;
    await late.close();
    await cluster.settled();
    assertUntouched(since);
  });

  test('is killed and comes back empty: the same, and everything is published again', async () => {
    const since = performance.now();
    await redis.kill();
    const late = await newcomer('late-2');
    await wait(AWAY);
    assert.deepEqual([...new Set(late.codes)], ['registry_unavailable']);
    const stop = await thief();
    await redis.restart();
    await late.ready;
    await late.close();
    await cluster.settled();
    assert.deepEqual(await stop(), []);
    assertUntouched(since);
  });

  test('answers 2 s late: requests to known names take as long as before', async (t) => {
    const before = performance.now();
    await wait(pauseOf(2000, 20_000));
    const since = performance.now();
    for (const node of cluster.nodes) node.redis?.delay(1000);
    await wait(pauseOf(4000, 60_000));
    const ended = performance.now();
    for (const node of cluster.nodes) node.redis?.heal();
    const usual = load.latencies(before, since);
    const slow = load.latencies(since, ended);
    assert.ok(usual.length > 100 && slow.length > 100);
    for (const share of [0.5, 0.99]) {
      const [without, during] = [percentile(usual, share), percentile(slow, share)];
      t.diagnostic(`p${share * 100}: ${without.toFixed(1)} ms before, ${during.toFixed(1)} ms during`);
      // One command to Redis would add 2,000 ms; a busy machine adds some tens.
      assert.ok(
        during < 2 * without + 100,
        `p${share * 100}: ${during.toFixed(1)} ms, before ${without.toFixed(1)} ms`,
      );
    }
    assert.ok((slow.at(-1) ?? 0) < 2000, `a request took ${slow.at(-1)} ms`);
    await until('redis is back', () => cluster.onlooker.unavailable() === undefined, CLAIMS_AGAIN);
    await cluster.settled();
    assertUntouched(before);
  });

  for (const [what, lose] of [
    ['loses the routing keys', loseKeys],
    ['is emptied altogether', (server: RedisServer) => server.client.flushall()],
    ['is killed and restarted from an old snapshot', restoreSnapshot],
  ] as const) {
    test(`${what}: no request fails, nobody takes a name, claims work within a lease`, async (t) => {
      await cluster.settled();
      const since = performance.now();
      const stop = await thief();
      await lose(redis, async () => {
        // What the snapshot holds and the cluster does not any more.
        const ghost = await newcomer('ghost');
        await ghost.ready;
        await redis.client.call('SAVE');
        await ghost.close();
        await until('it is gone', () => cluster.route('ghost') === undefined);
      });
      const took = await claimsWork(`after-${what.length}`, performance.now());
      t.diagnostic(`claims worked again after ${Math.round(took)} ms`);
      assert.ok(took < CLAIMS_AGAIN, `claims worked again after ${took} ms`);
      await cluster.settled();
      await until('nothing of the past is left', () => cluster.route('ghost') === undefined, CLAIMS_AGAIN);
      assert.deepEqual(await stop(), []);
      for (const tunnel of TUNNELS) assert.equal(cluster.route(tunnel)?.accountId, `account-${tunnel}`);
      assertUntouched(since);
    });
  }
});

async function loseKeys(server: RedisServer): Promise<void> {
  const keys = await server.client.keys('culvert:v1:*');
  assert.ok(keys.length > 0);
  await server.client.del(...keys);
}

async function restoreSnapshot(server: RedisServer, save: () => Promise<void>): Promise<void> {
  await save();
  await server.kill();
  await server.restart();
}
