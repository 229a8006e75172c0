import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, type TestAgent, TestCluster } from './cluster-kit.ts';
import { Load, type Outcome } from './load.ts';

/** Longest time until a node's endpoints are gone: its lease, 5 s, and the next look at it. */
const LEASE = 8000;
/** Longest time until an agent whose node fell silent is elsewhere: it asks after 5 s, waits 1 s, and dials. */
const RECONNECTED = 12_000;

describe('three nodes and six agents under steady load', { timeout: pauseOf(150_000, 900_000) }, () => {
  let redis: RedisServer;
  let cluster: TestCluster;
  let load: Load;
  /** With two sessions, and with one. */
  let double: TestAgent[];
  let single: TestAgent[];

  const isDouble = ({ tunnel }: Outcome): boolean => double.some((agent) => agent.tunnel === tunnel);

  before(async () => {
    redis = await startRedis();
    cluster = await TestCluster.start({
      redis,
      address: { kind: 'single', url: `redis://127.0.0.1:${redis.port}` },
      flags: { 'drain-timeout': '90s' },
    });
    double = await cluster.addAgents(['a', 'b', 'c', 'd']);
    single = await cluster.addAgents(['e', 'f'], { connections: 1 });
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

  test('every node answers for every agent, whoever holds it', () => {
    assert.deepEqual(load.faults(), []);
    const pairs = new Set(load.outcomes.map(({ node, tunnel }) => `${node} ${tunnel}`));
    assert.equal(pairs.size, cluster.nodes.length * cluster.agents.length);
  });

  test('a killed node costs what was in flight on it, and its agents with one session are back within 3 s', async () => {
    const [agent] = single;
    assert.ok(agent !== undefined);
    const victim = cluster.holderOf(agent);
    const others = cluster.nodes.filter((node) => node !== victim);
    const epochs = new Map(cluster.agents.map(({ tunnel }) => [tunnel, highestEpoch(cluster, tunnel)]));
    const killed = performance.now();
    await victim.kill();
    for (const node of others) {
      const back = async (): Promise<boolean> => (await visit(node.url(agent.tunnel))).status === 200;
      await until(`${agent.tunnel} is back through ${node.name}`, back, 3000);
    }
    const restored = performance.now();
    await until('no endpoint of the dead node is left', () => cluster.endpointsAt(victim) === 0, LEASE);
    await until('it is no member any more', () => !cluster.members.includes(victim.name), LEASE);
    await victim.start();
    await cluster.settled();
    for (const [tunnel, epoch] of epochs) assert.ok(highestEpoch(cluster, tunnel) >= epoch, `${tunnel} went back`);

    const faults = load.faults(killed - 5000);
    // The kill takes a moment to reach the other ends of its sockets.
    assert.deepEqual(
      faults.filter(isDouble).filter(({ started }) => started > killed + 100),
      [],
    );
    assert.deepEqual(
      faults.filter(({ started }) => started > restored),
      [],
    );
  });

  test('a node that stood still finds its lease lost, overwrites nothing and rejoins', async () => {
    const [agent] = double;
    assert.ok(agent !== undefined);
    const victim = cluster.holderOf(agent);
    const paused = performance.now();
    victim.pause();
    let epochs: ReadonlyMap<string, number>;
    let detected: number;
    let moved: number;
    try {
      await until('no endpoint of the silent node is left', () => cluster.endpointsAt(victim) === 0, LEASE);
      detected = performance.now();
      await until(
        'its agents have their sessions elsewhere, and every node knows',
        () => cluster.agents.every((agent) => cluster.isServed(agent) && !agent.nodes.includes(victim.name)),
        RECONNECTED,
      );
      for (const { tunnel } of cluster.agents) {
        for (const node of cluster.nodes.filter((each) => each !== victim)) await cluster.answers(tunnel, node);
      }
      moved = performance.now();
      await wait(pauseOf(8000, 60_000) - (performance.now() - paused));
      epochs = new Map(cluster.agents.map(({ tunnel }) => [tunnel, highestEpoch(cluster, tunnel)]));
    } finally {
      victim.resume();
    }
    const resumed = performance.now();
    await until('it is a member again', () => cluster.members.includes(victim.name), LEASE);
    await cluster.settled();
    // What it held before it stood still is not routed there, unless its agent came back with a newer epoch.
    for (const [tunnel, epoch] of epochs) assert.ok(highestEpoch(cluster, tunnel) >= epoch, `${tunnel} went back`);
    await until('traffic goes through it again', () =>
      load.outcomes.some(({ node, started }) => node === victim.name && started > resumed),
    );
    const faults = load.faults(paused);
    assert.deepEqual(
      faults.filter(isDouble).filter(({ node, method }) => node !== victim.name && method === 'GET'),
      [],
    );
    assert.deepEqual(
      faults.filter(isDouble).filter(({ started }) => started > detected),
      [],
    );
    // With one session there is nothing to serve a tunnel until its agent has found out.
    assert.deepEqual(
      faults.filter(({ started }) => started > moved),
      [],
    );
  });

  test('a rolling restart fails no request, long transfers included', async () => {
    await cluster.settled();
    const since = performance.now();
    const pieces = pauseOf(50, 600);
    for (const node of cluster.nodes) {
      const transfers = cluster.agents.map(({ tunnel }) => visit(node.url(tunnel, `/slow?count=${pieces}`)));
      // Through the other nodes too, so that some are relayed to the one that leaves.
      for (const other of cluster.nodes) {
        if (other !== node)
          transfers.push(...double.map(({ tunnel }) => visit(other.url(tunnel, `/slow?count=${pieces}`))));
      }
      await wait(500);
      await node.stop();
      for (const transfer of await Promise.all(transfers)) {
        assert.equal(transfer.status, 200, transfer.text.slice(0, 300));
        assert.equal(transfer.body.length, pieces * 1000);
      }
      await node.start();
      await cluster.settled();
    }
    assert.deepEqual(load.faults(since), []);
  });
});

function highestEpoch(cluster: TestCluster, tunnel: string): number {
  return Math.max(0, ...(cluster.route(tunnel)?.endpoints.map(({ session }) => session.epoch) ?? []));
}
