import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { SessionId, SessionRecord } from '../registry.ts';
import { claim, epochs, NODE_A, NODE_B, PLENTY, type TestCluster, tunnel, withCode } from './support.contract.ts';

/** Epochs, and what a replaced session may still do. */
export function sessionContract(cluster: TestCluster, races: number): void {
  describe('a session', () => {
    test('record says where and whose it is', async () => {
      const before = Date.now() - 1000;
      const record = await cluster.a.openSession(claim({ slot: 3 }));
      const { id, epoch, openedAt, ...rest } = record;
      assert.equal(id, 'agent-1/i1/3');
      assert.ok(Number.isSafeInteger(epoch) && epoch > 0);
      assert.ok(openedAt >= before && openedAt <= Date.now() + 1000);
      assert.deepEqual(
        { ...rest },
        { agentId: 'agent-1', accountId: 'acme', instanceId: 'i1', slot: 3, nodeId: NODE_A },
      );
      assert.deepEqual(await cluster.b.byAgent('agent-1'), [record]);
    });

    test('of another process or slot of the same agent lives beside it', async () => {
      const all = [
        await cluster.a.openSession(claim()),
        await cluster.b.openSession(claim({ slot: 1 })),
        await cluster.b.openSession(claim({ instanceId: 'i2' })),
      ];
      const found = await cluster.a.byAgent('agent-1');
      assert.deepEqual(new Set(found.map(({ id }) => id)), new Set(all.map(({ id }) => id)));
      assert.deepEqual(await cluster.a.byAgent('agent-2'), []);
    });

    test('is known to every node together with the other sessions of its process', async () => {
      const first = await cluster.a.openSession(claim());
      const second = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      await cluster.b.openSession(claim({ instanceId: 'i2' }));
      await cluster.settled();
      const beside = (id: SessionId): unknown => [cluster.a, cluster.b].map((node) => node.beside(id));
      assert.deepEqual(beside(first.id), [[second], [second]]);
      const moved = await cluster.a.openSession(claim({ slot: 1, nodeId: NODE_A }));
      await cluster.settled();
      assert.deepEqual(
        cluster.b.beside(first.id).map((other) => [other.epoch, other.nodeId]),
        [[moved.epoch, NODE_A]],
      );
      await cluster.a.closeSession(moved);
      await cluster.settled();
      assert.deepEqual(beside(first.id), [[], []]);
      assert.deepEqual(cluster.b.beside('agent-9/i1/0' as SessionId), []);
    });

    test('gets a higher epoch each time it opens, also after it was closed', async () => {
      let last = 0;
      for (let round = 0; round < 100; round += 1) {
        const session: SessionRecord = await (round % 2 === 0 ? cluster.a : cluster.b).openSession(claim());
        assert.ok(session.epoch > last, `${session.epoch} after ${last}`);
        last = session.epoch;
        if (round % 3 === 0) await cluster.a.closeSession(session);
      }
    });

    test('opened twice at once gives two epochs, and the higher one lives', async () => {
      for (let round = 0; round < races; round += 1) {
        const [x, y] = await Promise.all([
          cluster.a.openSession(claim()),
          cluster.b.openSession(claim({ nodeId: NODE_B })),
        ]);
        assert.notEqual(x.epoch, y.epoch);
        const winner = x.epoch > y.epoch ? x : y;
        assert.deepEqual(await cluster.a.byAgent('agent-1'), [winner]);
      }
    });

    test('that was replaced can neither register nor unregister', async () => {
      const old = await cluster.a.openSession(claim());
      const young = await cluster.b.openSession(claim({ nodeId: NODE_B }));
      await assert.rejects(cluster.a.register(old, tunnel('api'), PLENTY), withCode('session_replaced'));
      const route = await cluster.b.register(young, tunnel('api'), PLENTY);
      await assert.rejects(
        cluster.a.register(old, tunnel('api', { healthy: false }), PLENTY),
        withCode('session_replaced'),
      );
      await cluster.a.unregister(old, 'api');
      assert.deepEqual(await cluster.lookup('api'), route);
    });

    test('that was replaced removes nothing when it closes late', async () => {
      const old = await cluster.a.openSession(claim());
      await cluster.a.register(old, tunnel('api'), PLENTY);
      const young = await cluster.b.openSession(claim({ nodeId: NODE_B }));
      const route = await cluster.b.register(young, tunnel('api'), PLENTY);
      assert.deepEqual(epochs(route), [young.epoch]);
      await cluster.a.closeSession(old);
      assert.deepEqual(await cluster.lookup('api'), route);
      assert.deepEqual(await cluster.a.byAgent('agent-1'), [young]);
      await cluster.b.unregister(young, 'api');
      assert.equal(await cluster.lookup('api'), undefined);
    });

    test('that is replaced keeps its names until the newer one takes them over or closes', async () => {
      const old = await cluster.a.openSession(claim());
      await cluster.a.register(old, tunnel('moved'), PLENTY);
      await cluster.a.register(old, tunnel('dropped'), PLENTY);
      await cluster.a.register(old, tunnel('left'), PLENTY);
      const young = await cluster.b.openSession(claim({ nodeId: NODE_B }));
      await cluster.a.closeSession(old);
      const thief = await cluster.b.openSession(claim({ accountId: 'evil', agentId: 'agent-2' }));
      for (const host of ['moved', 'dropped', 'left']) {
        assert.deepEqual(epochs(await cluster.lookup(host)), [old.epoch]);
        await assert.rejects(cluster.b.register(thief, tunnel(host), PLENTY), withCode('tunnel_taken'));
      }
      await cluster.b.register(young, tunnel('moved'), PLENTY);
      assert.deepEqual(epochs(await cluster.lookup('moved')), [young.epoch]);
      await cluster.b.unregister(young, 'dropped');
      assert.equal(await cluster.lookup('dropped'), undefined);
      await cluster.b.closeSession(young);
      assert.equal(await cluster.lookup('moved'), undefined);
      assert.equal(await cluster.lookup('left'), undefined);
    });

    test('of another account cannot be replaced', async () => {
      const session = await cluster.a.openSession(claim());
      await assert.rejects(cluster.b.openSession(claim({ accountId: 'evil' })), withCode('tunnel_taken'));
      assert.deepEqual(await cluster.a.byAgent('agent-1'), [session]);
      await cluster.a.register(session, tunnel('api'), PLENTY);
    });

    test('that is closed registers nothing, and closing it again does nothing', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('api'), PLENTY);
      await cluster.a.closeSession(session);
      await cluster.a.closeSession(session);
      await cluster.a.unregister(session, 'api');
      await assert.rejects(cluster.a.register(session, tunnel('api'), PLENTY), withCode('session_replaced'));
      assert.equal(await cluster.lookup('api'), undefined);
      assert.deepEqual(await cluster.b.byAgent('agent-1'), []);
    });

    test('unregisters its own endpoint only', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('api'), PLENTY);
      const other = await cluster.b.openSession(claim({ slot: 1 }));
      await cluster.b.unregister(other, 'api');
      await cluster.b.unregister(other, 'nothing');
      assert.deepEqual(epochs(await cluster.lookup('api')), [session.epoch]);
    });
  });
}
