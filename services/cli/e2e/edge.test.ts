import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, TestCluster } from './cluster-kit.ts';
import { TestEdge } from './edge-kit.ts';
import { Load } from './load.ts';

/** HAProxy finds a node up or down within this time on a busy machine, milliseconds. */
const CHECKED = 15_000;

describe('three nodes behind HAProxy, under steady load', { timeout: pauseOf(175_000, 900_000) }, () => {
  let redis: RedisServer;
  let edge: TestEdge;
  let cluster: TestCluster;
  let load: Load;

  const hosts = (): string[] => cluster.agents.map(({ tunnel }) => `${tunnel}.localhost`).sort();
  const isInStep = async (): Promise<boolean> => {
    const owners = await edge.map('owners.map');
    return (
      (await edge.isReady()) &&
      cluster.agents.every(({ tunnel, nodes }) => {
        const servers = owners.get(`${tunnel}.localhost`)?.split(':') ?? [];
        return servers.length === new Set(nodes).size;
      })
    );
  };
  const settled = async (): Promise<void> => {
    await cluster.settled();
    await until('HAProxy has all nodes up', async () => (await edge.up()) === 3, CHECKED);
    await until('HAProxy knows who holds what', isInStep, CHECKED);
  };
  /** Requests that went on to another node, and all, since the nodes were started. */
  const counts = async (): Promise<{ readonly relayed: number; readonly all: number }> => {
    const metrics = await Promise.all(cluster.nodes.map((node) => node.metrics()));
    const sum = (wanted: (series: string) => boolean): number =>
      metrics.reduce((total, each) => {
        for (const [series, value] of each) if (wanted(series)) total += value;
        return total;
      }, 0);
    return {
      relayed: sum((series) => series === 'tunnel_relayed_requests_total'),
      all: sum((series) => series.startsWith('tunnel_requests_total{')),
    };
  };
  /** The share of requests that reached a node without the agent, over the next `requests`. */
  const relayShare = async (requests: number): Promise<number> => {
    const before = await counts();
    const from = load.outcomes.length;
    await until('there is traffic', () => load.outcomes.length > from + requests, 60_000);
    const now = await counts();
    return (now.relayed - before.relayed) / (now.all - before.all);
  };

  before(async () => {
    redis = await startRedis(['--appendonly', 'yes']);
    edge = await TestEdge.start(redis.url);
    cluster = await TestCluster.start({
      redis,
      address: { kind: 'single', url: redis.url },
      flags: { 'drain-timeout': '60s', 'drain-delay': '4s', 'trusted-proxies': '127.0.0.1' },
    });
    await edge.startSync();
    await cluster.addAgents(['a', 'b', 'c', 'd']);
    await cluster.addAgents(['e', 'f'], { connections: 1 });
    await settled();
    load = new Load(
      edge,
      hosts().map((host) => host.replace('.localhost', '')),
      1,
    );
  });

  after(async () => {
    await load?.stop();
    await cluster?.close();
    await edge?.close();
    await redis?.close();
  });

  test('at least 99.5 % of the requests reach a node that holds the agent', async (t) => {
    const share = await relayShare(1500);
    t.diagnostic(`${(100 * share).toFixed(2)} % were relayed`);
    assert.ok(share <= 0.005, `${share} were relayed`);
    assert.deepEqual(load.faults(), []);
  });

  test('HAProxy reloaded fails no request, and knows all at once from its files', async () => {
    const since = performance.now();
    await edge.haproxy.reload();
    assert.deepEqual([...(await edge.map('owners.map')).keys()].sort(), hosts());
    await edge.haproxy.reload();
    const from = load.outcomes.length;
    await until('there is traffic', () => load.outcomes.length > from + 200, 30_000);
    assert.deepEqual(load.faults(since), []);
  });

  test('all nodes restarted one after another fail no request', async () => {
    const since = performance.now();
    for (const node of cluster.nodes) {
      await node.stop();
      await node.start();
      await settled();
    }
    assert.deepEqual(load.faults(since), []);
    assert.ok((await relayShare(600)) <= 0.005, 'requests are relayed though all is as before');
  });

  test('without edge-sync every request is served, relayed where HAProxy is wrong, and it catches up when it is back', async (t) => {
    const since = performance.now();
    await edge.stopSync('SIGKILL');
    // A stale map, as after a long absence: every host at a server that is none, or at the wrong one.
    for (const host of hosts()) await edge.haproxy.command(`set map ${edge.ownersFile} ${host} core9`);
    const share = await relayShare(400);
    t.diagnostic(`${(100 * share).toFixed(0)} % were relayed`);
    assert.ok(share > 0.1, 'nothing was relayed, so the map was not wrong');
    assert.deepEqual(load.faults(since), []);
    await edge.startSync();
    // Nothing tells edge-sync that somebody wrote over its entries; a reload does, and so does any change.
    await edge.haproxy.command(`clear map ${edge.ownersFile}`);
    await until('HAProxy knows who holds what', isInStep, CHECKED);
    assert.ok((await relayShare(400)) <= 0.005);
    assert.deepEqual(load.faults(since), []);
  });

  test('HAProxy killed and started again serves from its files, and is brought in step', async () => {
    await edge.haproxy.kill();
    await edge.haproxy.start();
    const started = performance.now();
    await until(
      'it answers',
      async () => (await visit(edge.url('a', '/a?size=1')).catch(() => undefined))?.status === 200,
    );
    await until('edge-sync has found it', isInStep, CHECKED);
    const from = load.outcomes.length;
    await until('there is traffic', () => load.outcomes.length > from + 200, 30_000);
    assert.deepEqual(load.faults(started), []);
  });

  test('Redis away for a while changes nothing for visitors, nor what HAProxy knows', async () => {
    const since = performance.now();
    const known = await edge.map('owners.map');
    await redis.kill();
    await wait(pauseOf(7000, 60_000));
    assert.deepEqual(await edge.map('owners.map'), known);
    await edge.haproxy.reload();
    assert.deepEqual(await edge.map('owners.map'), known);
    await redis.restart();
    await settled();
    assert.deepEqual(load.faults(since), []);
  });

  test('a killed node costs only what was in flight on it', async () => {
    const [victim] = cluster.nodes;
    assert.ok(victim !== undefined);
    const single = cluster.agents.filter(
      ({ handle, nodes }) => handle.sessions.length === 1 && nodes.includes(victim.name),
    );
    const killed = performance.now();
    await victim.kill();
    await until('HAProxy has found it dead', async () => (await edge.up()) === 2, CHECKED);
    const from = load.outcomes.length;
    await until('there is traffic', () => load.outcomes.length > from + 200, 30_000);
    // Its agents with one session are on their way elsewhere; others have a second one. The kill takes a moment to be felt.
    const faults = load
      .faults(killed - 5000)
      .filter(({ tunnel }) => !single.some((agent) => agent.tunnel === tunnel))
      .filter(({ started }) => started > killed + 100);
    assert.deepEqual(faults, []);
    await victim.start();
    await settled();
  });
});
