import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { until } from '../../testkit/eventually.ts';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { claim, PLENTY, tunnel, withCode } from '../contract/support.contract.ts';
import type { Route } from '../registry.ts';
import { EVENTS, metaKey, routesKey, shardOf } from './keys.ts';
import type { RedisRegistry } from './redis-registry.ts';
import { emptyButOpen, openRegistry } from './support.contract.ts';

describe('a policy in redis', () => {
  let server: RedisServer;
  let registry: RedisRegistry;
  before(async () => {
    server = await startRedis();
    await emptyButOpen([server.client]);
    registry = await openRegistry('one', { kind: 'single', url: server.url });
  });
  after(async () => {
    await registry.close();
    await server.close();
  });

  /** As a node of a later version would write it. */
  async function rewrite(name: string, policy: string): Promise<void> {
    const shard = shardOf(name);
    const stored = await server.client.hget(routesKey(shard), name);
    const route = JSON.parse(stored ?? '{}') as { e: { y?: string }[] };
    for (const endpoint of route.e) endpoint.y = policy;
    const json = JSON.stringify(route);
    const version = await server.client.hincrby(metaKey(shard), 'version', 1);
    const generation = await server.client.hget(metaKey(shard), 'gen');
    await server.client.hset(routesKey(shard), name, json);
    const head = JSON.stringify([shard, generation, version, 'route', name]);
    await server.client.publish(EVENTS, `${head}\n${json}`);
  }

  async function seen(name: string, condition: (route: Route | undefined) => boolean): Promise<void> {
    await until('the node has heard of it', () => condition(registry.lookup(name)));
  }

  test('that this version cannot read lets nobody in, and leaves the name with its account', async () => {
    const session = await registry.openSession(claim());
    await registry.register(session, tunnel('api', { policy: { balance: 'sticky' } }), PLENTY);
    await rewrite('api', '{"balance":"sticky","allow":["10.0.0.0/8"]}');
    await seen('api', (route) => route?.endpoints.length === 0);
    assert.equal(registry.lookup('api')?.policy, undefined);
    assert.deepEqual(
      (await registry.byAccount('acme')).map(({ endpoints }) => endpoints),
      [[]],
    );
    const thief = await registry.openSession(claim({ accountId: 'evil', agentId: 'agent-2' }));
    await assert.rejects(registry.register(thief, tunnel('api'), PLENTY), withCode('tunnel_taken'));
    await rewrite('api', '{"balance":"round-robin"}');
    await seen('api', (route) => route?.endpoints.length === 1 && route.policy?.balance === 'round-robin');
  });
});
