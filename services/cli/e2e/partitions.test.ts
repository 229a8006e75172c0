import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, type TestAgent, TestCluster, type TestNode } from './cluster-kit.ts';
import { Load } from './load.ts';
import { OneSession } from './one-session.ts';

/** Longest time until a node's endpoints are gone: its lease, 5 s, and the next look at it. */
const LEASE = 8000;
/** A silent link is known within 3 s; the rest is the machine's. */
const DETECTED = 5000;
const AWAY = pauseOf(7000, 60_000);
/** Races for one name; the registry's own tests run a thousand each time. */
const RACES = pauseOf(250, 1000);
const TUNNELS = ['a', 'b', 'c', 'd', 'e', 'f'];

describe('three nodes under load', { timeout: pauseOf(150_000, 600_000) }, () => {
  let redis: RedisServer;
  let cluster: TestCluster;
  /** Those whose sessions are on two nodes. */
  let agents: TestAgent[];
  let tunnels: string[];
  let service: LocalService<Server>;
  let load: Load;

  before(async () => {
    redis = await startRedis();
    service = await startHttpService((_request, response) => response.end('here'));
    cluster = await TestCluster.start({ redis, address: { kind: 'single', url: redis.url } });
    agents = (await cluster.addAgents(TUNNELS)).filter(({ nodes }) => new Set(nodes).size === 2);
    assert.ok(agents.length > 0, 'every agent has both sessions on one node');
    tunnels = agents.map(({ tunnel }) => tunnel);
    // A new Redis takes no claims for one lease, which the first agents are told.
    for (const agent of agents) agent.losses.splice(0);
    load = new Load(cluster.balancer, tunnels, 1);
    await until('there is traffic', () => load.outcomes.length > 100, 20_000);
  });
  after(async () => {
    for (const node of cluster?.nodes ?? []) for (const way of [node.agents, node.relay, node.redis]) way?.heal();
    await load?.stop();
    await cluster?.close();
    await service?.close();
    await redis?.close();
  });

  const session = (node: TestNode, account: string, instance: string, tunnel: string): Promise<OneSession> =>
    OneSession.open({ node, account, instance, tunnel, url: service.url });

  async function answersThrough(node: TestNode, tunnel: string): Promise<boolean> {
    return (await visit(node.url(tunnel))).status === 200;
  }

  test('a node whose links fall silent is gone round within seconds, and found again', async (t) => {
    const [agent] = agents;
    assert.ok(agent !== undefined);
    const [first, second] = [cluster.holderOf(agent, 0), cluster.holderOf(agent, 1)];
    const entry = cluster.nodes.find((node) => node !== first && node !== second);
    assert.ok(entry !== undefined && first !== second);
    const since = performance.now();
    first.relay.silence();
    await wait(DETECTED);
    const detected = performance.now();
    await wait(2000);
    // Requests that can be repeated were, unseen; others only fail when they were on the silent link.
    const faults = load.faults(since);
    assert.deepEqual(
      faults.filter(({ method, started }) => method === 'GET' || started > detected),
      [],
    );
    const slowest = load.latencies(since, performance.now()).at(-1) ?? 0;
    t.diagnostic(`the slowest request took ${Math.round(slowest)} ms; ${faults.length} lost`);
    assert.ok(slowest < DETECTED + 1000, `a request waited ${slowest} ms`);

    await load.stop();
    second.relay.silence();
    await wait(DETECTED);
    const answer = await visit(entry.url(agent.tunnel), { headers: { host: `${agent.tunnel}.localhost` } });
    assert.deepEqual([answer.status, answer.headers['x-culvert-error']], [502, 'agent_offline']);
    assert.ok(await answersThrough(first, agent.tunnel), 'the holders serve their own visitors');

    first.relay.heal();
    second.relay.heal();
    await until('the links are back', () => answersThrough(entry, agent.tunnel), 10_000);
    await cluster.settled();
    for (const each of agents) assert.deepEqual(each.losses, []);
    load = new Load(cluster.balancer, tunnels, 1);
  });

  test('a node that loses Redis is not routed to, serves its own visitors, and is a member again after it', async () => {
    const [victim] = cluster.nodes;
    assert.ok(victim !== undefined);
    const since = performance.now();
    const before = new Map(tunnels.map((tunnel) => [tunnel, highestEpoch(cluster, tunnel)]));
    victim.redis?.silence();
    await until('no endpoint of it is routed to', () => cluster.endpointsAt(victim) === 0, LEASE);
    await until('it is no member', () => !cluster.members.includes(victim.name), LEASE);
    for (const tunnel of tunnels) assert.ok(await answersThrough(victim, tunnel));
    await wait(Math.max(0, AWAY - (performance.now() - since)));
    victim.redis?.heal();
    await until('it is a member again', () => cluster.members.includes(victim.name), LEASE);
    await cluster.settled();
    for (const [tunnel, epoch] of before) assert.ok(highestEpoch(cluster, tunnel) >= epoch, `${tunnel} went back`);
    for (const tunnel of tunnels) {
      const ids = cluster.route(tunnel)?.endpoints.map(({ session: { id } }) => id) ?? [];
      assert.equal(new Set(ids).size, 2, `${tunnel} is served by ${ids.join()}`);
    }
    assert.deepEqual(load.faults(since), []);
  });

  test('of two owners of a session after a partition the newer one stays and the older one is sent away', async () => {
    const [left, right] = cluster.nodes;
    assert.ok(left !== undefined && right !== undefined);
    const old = await session(left, 'split', 'i', 'split');
    assert.equal((await old.register()).success, true);
    left.redis?.silence();
    const young = await session(right, 'split', 'i', 'split');
    assert.equal((await young.register()).success, true);
    // Both serve: the partitioned node cannot know better.
    assert.ok(await answersThrough(left, 'split'));
    left.redis?.heal();
    assert.equal(await old.sentAway, 'session_replaced');
    old.close();
    await until('one owner is left', () => cluster.route('split')?.endpoints.length === 1, LEASE);
    assert.equal(cluster.route('split')?.endpoints[0]?.nodeId, right.name);
    for (const node of cluster.nodes) {
      await until(`${node.name} knows`, () => answersThrough(node, 'split'), LEASE);
    }
    young.close();
  });

  test('a close of a replaced session that comes 5 s late takes nothing from the new one', async () => {
    const [left, right] = cluster.nodes;
    assert.ok(left !== undefined && right !== undefined);
    const old = await session(left, 'late', 'i', 'late');
    assert.equal((await old.register()).success, true);
    left.redis?.silence();
    old.close();
    await old.closed;
    const young = await session(right, 'late', 'i', 'late');
    assert.equal((await young.register()).success, true);
    await wait(5000);
    left.redis?.heal();
    await until('the node is back', () => cluster.members.includes(left.name), LEASE);
    const healed = performance.now();
    while (performance.now() - healed < 3000) {
      for (const node of cluster.nodes) assert.ok(await answersThrough(node, 'late'), `${node.name} lost it`);
      await wait(50);
    }
    young.close();
  });

  test(`${RACES} races of two accounts for one name on two nodes have one winner each`, async (t) => {
    await cluster.settled();
    const [left, right] = cluster.nodes;
    assert.ok(left !== undefined && right !== undefined);
    const racers = [await session(left, 'racer-1', 'i', 'hot'), await session(right, 'racer-2', 'j', 'hot')];
    const won = [0, 0];
    for (let round = 0; round < RACES; round += 1) {
      const answers = await Promise.all(racers.map((racer) => racer.register()));
      const codes = answers.map(({ success, code }) => (success ? 'won' : code));
      assert.deepEqual(codes.toSorted(), ['tunnel_taken', 'won'], `round ${round}`);
      const winner = codes.indexOf('won');
      won[winner] = (won[winner] ?? 0) + 1;
      racers[winner]?.unregister();
      // Free for both again, before both ask.
      await until('the name is free', () => cluster.route('hot') === undefined);
    }
    t.diagnostic(`won ${won.join(' : ')}`);
    assert.ok(Math.min(...won) > 0, `won ${won.join(' : ')}: nobody raced`);
    for (const racer of racers) racer.close();
  });
});

function highestEpoch(cluster: TestCluster, tunnel: string): number {
  return Math.max(0, ...(cluster.route(tunnel)?.endpoints.map(({ session }) => session.epoch) ?? []));
}
