import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { claim, NODE_B, oneWinner, type TestCluster, tunnel, withCode } from './support.contract.ts';

/** Limits are part of the claim that they bound. */
export function limitContract(cluster: TestCluster, races: number): void {
  describe('a limit', () => {
    test('on tunnels counts names of the account on every node, not endpoints', async () => {
      const first = await cluster.a.openSession(claim());
      const second = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      await cluster.a.register(first, tunnel('one'), 2);
      await cluster.b.register(second, tunnel('one'), 2);
      await cluster.b.register(second, tunnel('two'), 2);
      await assert.rejects(cluster.a.register(first, tunnel('three'), 2), withCode('quota_exceeded'));
      assert.equal(await cluster.lookup('three'), undefined);
      await cluster.a.register(first, tunnel('two', { healthy: false }), 2);
      const other = await cluster.a.openSession(claim({ accountId: 'other', agentId: 'agent-2' }));
      await cluster.a.register(other, tunnel('three'), 2);
    });

    test('on tunnels that was lowered refuses new names, and still takes health reports', async () => {
      const session = await cluster.a.openSession(claim());
      for (const host of ['one', 'two', 'three']) await cluster.a.register(session, tunnel(host), 3);
      await cluster.a.register(session, tunnel('one', { healthy: false }), 1);
      assert.equal((await cluster.lookup('one'))?.endpoints[0]?.healthy, false);
      await assert.rejects(cluster.a.register(session, tunnel('four'), 1), withCode('quota_exceeded'));
    });

    test('on tunnels is free again after unregistering and after closing', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('one'), 1);
      await cluster.a.unregister(session, 'one');
      await cluster.a.register(session, tunnel('two'), 1);
      await cluster.a.closeSession(session);
      const next = await cluster.b.openSession(claim({ instanceId: 'i2' }));
      await cluster.b.register(next, tunnel('three'), 1);
    });

    test('on tunnels admits exactly one of two claims that race for the last place', async () => {
      const left = await cluster.a.openSession(claim());
      const right = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      for (let round = 0; round < races; round += 1) {
        const results = await Promise.allSettled([
          cluster.a.register(left, tunnel(`left-${round}`), 1),
          cluster.b.register(right, tunnel(`right-${round}`), 1),
        ]);
        oneWinner(results, 'quota_exceeded');
        await Promise.all([cluster.a.unregister(left, `left-${round}`), cluster.b.unregister(right, `right-${round}`)]);
      }
    });

    test('of no tunnels or no sessions admits none', async () => {
      await assert.rejects(cluster.a.openSession(claim({ maxSessionsPerAccount: 0 })), withCode('quota_exceeded'));
      const session = await cluster.a.openSession(claim());
      await assert.rejects(cluster.a.register(session, tunnel('api'), 0), withCode('quota_exceeded'));
    });

    test('on sessions counts live sessions of the account on every node', async () => {
      const one = await cluster.a.openSession(claim({ maxSessionsPerAccount: 2 }));
      await cluster.b.openSession(claim({ agentId: 'agent-2', nodeId: NODE_B, maxSessionsPerAccount: 2 }));
      const third = claim({ slot: 1, maxSessionsPerAccount: 2 });
      await assert.rejects(cluster.b.openSession(third), withCode('quota_exceeded'));
      assert.equal((await cluster.a.byAgent('agent-1')).length, 1);
      await cluster.a.openSession(claim({ accountId: 'other', agentId: 'agent-3', maxSessionsPerAccount: 1 }));
      await cluster.a.closeSession(one);
      await cluster.b.openSession(third);
    });

    test('on sessions does not count a replacement twice', async () => {
      await cluster.a.openSession(claim({ maxSessionsPerAccount: 1 }));
      const second = await cluster.b.openSession(claim({ nodeId: NODE_B, maxSessionsPerAccount: 1 }));
      await cluster.b.closeSession(second);
      await cluster.a.openSession(claim({ slot: 7, maxSessionsPerAccount: 1 }));
    });

    test('on sessions admits exactly one of two that race for the last place', async () => {
      for (let round = 0; round < races; round += 1) {
        const results = await Promise.allSettled([
          cluster.a.openSession(claim({ slot: 0, maxSessionsPerAccount: 1 })),
          cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B, maxSessionsPerAccount: 1 })),
        ]);
        oneWinner(results, 'quota_exceeded');
        for (const session of await cluster.a.byAgent('agent-1')) await cluster.a.closeSession(session);
      }
    });
  });
}
