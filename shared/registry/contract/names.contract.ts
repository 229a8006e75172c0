import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NodeId } from '../registry.ts';
import {
  claim,
  epochs,
  NODE_A,
  NODE_B,
  names,
  oneWinner,
  PLENTY,
  refOf,
  type TestCluster,
  tunnel,
  withCode,
} from './support.contract.ts';

/** Who owns a name, and which endpoints it has. */
export function nameContract(cluster: TestCluster, races: number): void {
  describe('a name', () => {
    test('that is registered is found on every node with all that is known of it', async () => {
      const before = Date.now() - 1000;
      const session = await cluster.a.openSession(claim());
      const route = await cluster.a.register(session, tunnel('api', { localAddr: 'http://localhost:1' }), PLENTY);
      assert.deepEqual(await cluster.lookup('api'), route);
      assert.ok(route.createdAt >= before && route.createdAt <= Date.now() + 1000);
      assert.deepEqual(
        { ...route, createdAt: 0 },
        {
          name: 'api',
          accountId: 'acme',
          createdAt: 0,
          endpoints: [
            {
              session: refOf(session),
              nodeId: NODE_A,
              agentId: 'agent-1',
              localAddr: 'http://localhost:1',
              healthy: true,
            },
          ],
        },
      );
    });

    test('that nobody registered is not found, nor one that only looks like a property of an object', async () => {
      for (const host of ['api', '', 'constructor', '__proto__', 'toString'])
        assert.equal(cluster.a.lookup(host), undefined);
      const session = await cluster.a.openSession(claim({ accountId: '__proto__', agentId: 'constructor' }));
      await cluster.a.register(session, tunnel('constructor'), PLENTY);
      assert.equal((await cluster.lookup('constructor'))?.accountId, '__proto__');
      assert.deepEqual(names(await cluster.b.byAccount('__proto__')), ['constructor']);
      assert.equal((await cluster.b.byAgent('constructor')).length, 1);
    });

    test('may be a custom domain', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('app.example.com'), PLENTY);
      assert.equal((await cluster.lookup('app.example.com'))?.name, 'app.example.com');
      assert.equal(cluster.a.lookup('app'), undefined);
      assert.equal(cluster.a.lookup('example.com'), undefined);
    });

    test('of one account is refused to another, which changes nothing', async () => {
      const owner = await cluster.a.openSession(claim());
      const route = await cluster.a.register(owner, tunnel('api'), PLENTY);
      const thief = await cluster.b.openSession(claim({ accountId: 'evil', agentId: 'agent-2', nodeId: NODE_B }));
      await assert.rejects(cluster.b.register(thief, tunnel('api'), PLENTY), withCode('tunnel_taken'));
      assert.deepEqual(await cluster.lookup('api'), route);
      assert.deepEqual(await cluster.b.byAccount('evil'), []);
    });

    test('has an endpoint for each session, and goes with the last one', async () => {
      const first = await cluster.a.openSession(claim());
      const second = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      const third = await cluster.b.openSession(claim({ agentId: 'agent-2', nodeId: NODE_B }));
      const { createdAt } = await cluster.a.register(first, tunnel('api'), PLENTY);
      await cluster.b.register(second, tunnel('api'), PLENTY);
      await cluster.b.register(third, tunnel('api'), PLENTY);
      const all = await cluster.lookup('api');
      assert.deepEqual(all?.endpoints.map((endpoint) => endpoint.nodeId).sort(), [NODE_A, NODE_B, NODE_B]);
      assert.equal(all?.createdAt, createdAt);

      await cluster.a.closeSession(first);
      assert.deepEqual(
        epochs(await cluster.lookup('api')),
        [second.epoch, third.epoch].sort((x, y) => x - y),
      );
      await cluster.b.unregister(second, 'api');
      assert.deepEqual(epochs(await cluster.lookup('api')), [third.epoch]);
      await cluster.b.closeSession(third);
      assert.equal(await cluster.lookup('api'), undefined);
      assert.deepEqual(await cluster.a.byAccount('acme'), []);
      assert.deepEqual(cluster.a.stats(), { tunnels: 0, endpoints: 0, sessions: 1 });
    });

    test('that went away may be claimed by another account', async () => {
      const first = await cluster.a.openSession(claim());
      await cluster.a.register(first, tunnel('api'), PLENTY);
      await cluster.a.unregister(first, 'api');
      const other = await cluster.b.openSession(claim({ accountId: 'other', agentId: 'agent-2' }));
      await cluster.b.register(other, tunnel('api'), PLENTY);
      assert.equal((await cluster.lookup('api'))?.accountId, 'other');
      assert.deepEqual(await cluster.a.byAccount('acme'), []);
    });

    test('has exactly one winner when two accounts race for it', async () => {
      const left = await cluster.a.openSession(claim());
      const right = await cluster.b.openSession(claim({ accountId: 'other', agentId: 'agent-2', nodeId: NODE_B }));
      for (let round = 0; round < races; round += 1) {
        const host = `race-${round}`;
        const claims = [
          () => cluster.a.register(left, tunnel(host), PLENTY),
          () => cluster.b.register(right, tunnel(host), PLENTY),
        ];
        if (round % 2 === 1) claims.reverse();
        const results = await Promise.allSettled(claims.map((run) => run()));
        const won = oneWinner(results, 'tunnel_taken');
        const winner = (won === 0) === (round % 2 === 0) ? left : right;
        const route = await cluster.lookup(host);
        assert.equal(route?.accountId, winner.accountId);
        assert.deepEqual(epochs(route), [winner.epoch]);
      }
    });

    test('keeps an endpoint that registers while the last other one unregisters', async () => {
      const left = await cluster.a.openSession(claim());
      const right = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      for (let round = 0; round < races; round += 1) {
        const host = `shared-${round}`;
        await cluster.a.register(left, tunnel(host), PLENTY);
        await Promise.all([cluster.a.unregister(left, host), cluster.b.register(right, tunnel(host), PLENTY)]);
        assert.deepEqual(epochs(await cluster.lookup(host)), [right.epoch]);
      }
      assert.equal((await cluster.a.byAccount('acme')).length, races);
    });
  });

  describe('registering again', () => {
    test('updates the address and the health of the one endpoint', async () => {
      const session = await cluster.a.openSession(claim());
      const first = await cluster.a.register(session, tunnel('api'), PLENTY);
      await cluster.a.register(session, tunnel('api', { healthy: false, localAddr: 'http://localhost:9' }), PLENTY);
      const sick = await cluster.lookup('api');
      assert.equal(sick?.createdAt, first.createdAt);
      assert.deepEqual(
        sick?.endpoints.map(({ healthy, localAddr }) => ({ healthy, localAddr })),
        [{ healthy: false, localAddr: 'http://localhost:9' }],
      );
      await cluster.a.register(session, tunnel('api', { healthy: true, localAddr: 'http://localhost:9' }), PLENTY);
      await cluster.a.register(session, tunnel('api'), PLENTY);
      assert.deepEqual(await cluster.lookup('api'), first);
      assert.deepEqual(cluster.a.stats(), { tunnels: 1, endpoints: 1, sessions: 1 });
    });

    test('leaves the endpoints of other sessions as they are', async () => {
      const first = await cluster.a.openSession(claim());
      const second = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      await cluster.a.register(first, tunnel('api'), PLENTY);
      await cluster.b.register(second, tunnel('api'), PLENTY);
      await cluster.a.register(first, tunnel('api', { healthy: false }), PLENTY);
      const health = (await cluster.lookup('api'))?.endpoints.map(({ nodeId, healthy }) => [nodeId, healthy]);
      assert.deepEqual(new Map(health as [NodeId, boolean][]), new Map([[NODE_A, false], [NODE_B, true]])); // biome-ignore format: a table
    });

    test('does not touch a route that somebody holds', async () => {
      const session = await cluster.a.openSession(claim());
      await cluster.a.register(session, tunnel('api'), PLENTY);
      const held = await cluster.lookup('api');
      const copy = structuredClone(held);
      await cluster.a.register(session, tunnel('api', { healthy: false }), PLENTY);
      await cluster.a.register(await cluster.a.openSession(claim({ slot: 1 })), tunnel('api'), PLENTY);
      await cluster.a.closeSession(session);
      await cluster.settled();
      assert.deepEqual(held, copy);
      assert.notDeepEqual(cluster.a.lookup('api'), copy);
      assert.ok(Object.isFrozen(held) && Object.isFrozen(held?.endpoints));
    });
  });
}
