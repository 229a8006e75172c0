import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { pauseOf, TestCluster } from './cluster-kit.ts';
import { TestEdge } from './edge-kit.ts';

describe('three nodes behind HAProxy', { timeout: pauseOf(170_000, 900_000) }, () => {
  let redis: RedisServer;
  let edge: TestEdge;
  let cluster: TestCluster;

  before(async () => {
    redis = await startRedis();
    edge = await TestEdge.start(redis.url);
    cluster = await TestCluster.start({
      redis,
      address: { kind: 'single', url: redis.url },
      flags: { 'drain-timeout': '60s', 'drain-delay': '3s', 'trusted-proxies': '127.0.0.1' },
    });
    await edge.startSync();
    await cluster.addAgents(['a', 'b', 'c', 'd']);
  });

  after(async () => {
    await cluster?.close();
    await edge?.close();
    await redis?.close();
  });

  test('are its servers, and each host is known with the nodes that hold its agent', async () => {
    await until('all are up', async () => (await edge.up()) === 3, 10_000);
    const server = new Map<string, string>();
    for (const line of (await edge.haproxy.command('show servers state cores')).split('\n')) {
      const fields = line.split(' ');
      for (const node of cluster.nodes) if (fields[18] === `${node.publicPort}`) server.set(node.name, fields[3] ?? '');
    }
    assert.equal(server.size, 3);
    for (const { tunnel, nodes } of cluster.agents) {
      const wanted = nodes.map((name) => server.get(name)).sort();
      await until(`the nodes of ${tunnel} are known`, async () => {
        const owners = (await edge.map('owners.map')).get(`${tunnel}.localhost`);
        return owners?.split(':').sort().join() === wanted.join();
      });
      const { status, text } = await visit(edge.url(tunnel, '/x'));
      assert.equal(status, 200, text);
    }
  });
});
