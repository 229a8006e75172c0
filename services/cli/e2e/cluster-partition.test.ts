import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, TestCluster, type TestNode } from './cluster-kit.ts';
import { Load, type Outcome } from './load.ts';

/** A link is dead after 3 s without a word (DESIGN.md section 4, invariant 6); the rest is this machine's. */
const LINK_DEAD = 4500;
/** Longest time until a node's endpoints are gone: its lease, 5 s, and the next look at it. */
const LEASE = 8000;
/** A node asks the others after 4 s, and agents dial within a second or two. */
const MOVED = 10_000;

describe('three nodes that are cut off from each other', { timeout: pauseOf(150_000, 900_000) }, () => {
  let redis: RedisServer;
  let cluster: TestCluster;
  let load: Load;
  let since: number;

  before(async () => {
    redis = await startRedis();
    cluster = await TestCluster.start({ redis, address: { kind: 'single', url: redis.url } });
    await cluster.addAgents(['a', 'b', 'c', 'd', 'e', 'f']);
    load = new Load(
      cluster.balancer,
      cluster.agents.map(({ tunnel }) => tunnel),
    );
    await until('there is traffic', () => load.outcomes.length > 200);
  });

  after(async () => {
    await load?.stop();
    await cluster?.close();
    await redis?.close();
  });

  beforeEach(() => {
    since = performance.now();
  });

  /** What failed and may not have: all but requests with a body whose fate is unknown, on their way when the link was cut. */
  function unexpected(detected: number): readonly Outcome[] {
    return load.faults(since).filter(({ method, started }) => method === 'GET' || started > detected);
  }

  function epochs(): Map<string, readonly number[]> {
    return new Map(
      cluster.agents.map(({ tunnel }) => [
        tunnel,
        (cluster.route(tunnel)?.endpoints ?? []).map(({ session }) => session.epoch).sort((x, y) => x - y),
      ]),
    );
  }

  /** Every tunnel has the sessions that its agent has, each once, and none has an older epoch than before. */
  async function healed(before: ReadonlyMap<string, readonly number[]>): Promise<void> {
    await cluster.settled();
    const now = epochs();
    for (const agent of cluster.agents) {
      const held = agent.handle.sessions.map(({ nodeId }) => nodeId).sort();
      const routed = cluster
        .route(agent.tunnel)
        ?.endpoints.map(({ nodeId }) => nodeId)
        .sort();
      assert.deepEqual(routed, held, agent.tunnel);
      assert.ok((now.get(agent.tunnel)?.[0] ?? 0) >= (before.get(agent.tunnel)?.[0] ?? 0), `${agent.tunnel} went back`);
    }
  }

  async function answersEverywhere(nodes: readonly TestNode[]): Promise<void> {
    for (const { tunnel } of cluster.agents) {
      for (const node of nodes) assert.equal((await visit(node.url(tunnel))).status, 200, `${tunnel} by ${node.name}`);
    }
  }

  test('one node that the others cannot reach: its peers use the other endpoints, and the link comes back by itself', async () => {
    const before = epochs();
    const victim = cluster.node(0);
    victim.relay.silence();
    await wait(LINK_DEAD);
    const detected = performance.now();
    await answersEverywhere(cluster.nodes);
    await wait(pauseOf(4000, 60_000));
    assert.deepEqual(unexpected(detected), []);
    victim.relay.heal();
    await healed(before);
    // Nobody lost its place for a link between two nodes.
    assert.deepEqual(epochs(), before);
    const mended = performance.now();
    await wait(2000);
    assert.deepEqual(load.faults(mended), []);
  });

  test('no node reaches another: each answers with the sessions that it has', async () => {
    const before = epochs();
    for (const node of cluster.nodes) node.relay.silence();
    await wait(LINK_DEAD);
    for (const agent of cluster.agents) {
      for (const node of cluster.nodes) {
        const { status, text } = await visit(node.url(agent.tunnel));
        if (agent.nodes.includes(node.name)) assert.equal(status, 200, `${agent.tunnel} by ${node.name}: ${text}`);
        // It says what is wrong, within a moment, and never answers for somebody else.
        else assert.equal(status, 502, `${agent.tunnel} by ${node.name}: ${text}`);
      }
    }
    for (const node of cluster.nodes) node.relay.heal();
    await healed(before);
    assert.deepEqual(epochs(), before);
  });

  test('a node cut off from Redis: its agents move to the others, and it comes back', async () => {
    const before = epochs();
    const [single] = await cluster.addAgents(['single'], { connections: 1 });
    assert.ok(single !== undefined);
    const victim = cluster.holderOf(single);
    const others = cluster.nodes.filter((node) => node !== victim);
    since = performance.now();
    victim.redis?.silence();
    try {
      await until('no endpoint of it is routed', () => cluster.endpointsAt(victim) === 0, LEASE);
      await until(
        'its agents have left',
        () => cluster.agents.every(({ nodes }) => !nodes.includes(victim.name)),
        MOVED,
      );
      await until('others see where they went', () => (cluster.route('single')?.endpoints.length ?? 0) === 1, MOVED);
      await answersEverywhere(others);
      assert.equal(await victim.isReady(), false);
      await wait(pauseOf(2000, 60_000));
      assert.deepEqual(load.faults(since), []);
    } finally {
      victim.redis?.heal();
    }
    await until('it is a member again', () => cluster.members.includes(victim.name), LEASE);
    await healed(before);
    assert.deepEqual(load.faults(since), []);
  });
});
