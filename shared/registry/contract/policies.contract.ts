import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TunnelPolicy } from '../../policy/tunnel-policy.ts';
import type { RegistryEvent } from '../registry.ts';
import { claim, NODE_B, PLENTY, type TestCluster, tunnel } from './support.contract.ts';

const STICKY: TunnelPolicy = { balance: 'sticky' };
const IN_TURN: TunnelPolicy = { balance: 'round-robin' };

/** Whose policy a tunnel has. */
export function policyContract(cluster: TestCluster): void {
  describe('the policy of a tunnel', () => {
    const policy = async (): Promise<TunnelPolicy | undefined> => (await cluster.lookup('api'))?.policy;

    test('is that of its registration, on every node, and absent without one', async () => {
      const session = await cluster.a.openSession(claim());
      const plain = await cluster.a.register(session, tunnel('plain'), PLENTY);
      assert.ok(!('policy' in plain));
      const route = await cluster.a.register(session, tunnel('api', { policy: STICKY }), PLENTY);
      assert.deepEqual([route.policy, route.endpoints[0]?.policy], [STICKY, STICKY]);
      assert.deepEqual(await cluster.lookup('api'), route);
      assert.deepEqual((await cluster.b.byAccount('acme')).find(({ name }) => name === 'api')?.policy, STICKY);
    });

    test('changes with an event when the session registers again, and the same policy again makes none', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('api', { policy: STICKY }), PLENTY);
      await cluster.settled();
      const events: RegistryEvent[] = [];
      cluster.b.subscribe((event) => events.push(event));
      await cluster.a.register(session, tunnel('api', { policy: { ...STICKY } }), PLENTY);
      await cluster.settled();
      assert.equal(events.length, 0);
      await cluster.a.register(session, tunnel('api', { policy: IN_TURN }), PLENTY);
      assert.deepEqual(await policy(), IN_TURN);
      await cluster.a.register(session, tunnel('api'), PLENTY);
      assert.equal(await policy(), undefined);
      assert.deepEqual(
        events.map((event) => event.type === 'route' && event.route?.policy?.balance),
        ['round-robin', undefined],
      );
    });

    test('is that of the newest session, in whichever order they register', async () => {
      const older = await cluster.a.openSession(claim());
      const newer = await cluster.b.openSession(claim({ agentId: 'agent-2', nodeId: NODE_B }));
      assert.ok(newer.epoch >= older.epoch);
      await cluster.b.register(newer, tunnel('api', { policy: STICKY }), PLENTY);
      await cluster.a.register(older, tunnel('api', { policy: IN_TURN }), PLENTY);
      assert.deepEqual(await policy(), STICKY);
      // As a health check does it, again and again.
      await cluster.a.register(older, tunnel('api', { policy: IN_TURN, healthy: false }), PLENTY);
      assert.deepEqual(await policy(), STICKY);
    });

    test('is that of the newest session also when it asks for none, and of the next when that one goes', async () => {
      const oldest = await cluster.a.openSession(claim());
      const middle = await cluster.a.openSession(claim({ agentId: 'agent-2' }));
      const newest = await cluster.b.openSession(claim({ agentId: 'agent-3', nodeId: NODE_B }));
      await cluster.a.register(oldest, tunnel('api', { policy: IN_TURN }), PLENTY);
      await cluster.a.register(middle, tunnel('api', { policy: STICKY }), PLENTY);
      await cluster.b.register(newest, tunnel('api'), PLENTY);
      assert.equal(await policy(), undefined);
      await cluster.b.unregister(newest, 'api');
      assert.deepEqual(await policy(), STICKY);
      await cluster.a.closeSession(middle);
      assert.deepEqual(await policy(), IN_TURN);
    });
  });
}
