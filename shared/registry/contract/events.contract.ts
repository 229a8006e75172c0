import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Registry, RegistryEvent } from '../registry.ts';
import { claim, NODE_A, NODE_B, PLENTY, refOf, type TestCluster, tunnel } from './support.contract.ts';

/** What listeners hear, and in which order. */
export function eventContract(cluster: TestCluster): void {
  describe('events', () => {
    function record(registry: Registry): { events: RegistryEvent[]; stop: () => void } {
      const events: RegistryEvent[] = [];
      return { events, stop: registry.subscribe((event) => events.push(event)) };
    }

    /** The history of one name: the health of its endpoints after each change, or `gone`. */
    function history(events: readonly RegistryEvent[], host: string): string[] {
      return events.flatMap((event) =>
        event.type === 'route' && event.name === host
          ? [event.route === undefined ? 'gone' : event.route.endpoints.map(({ healthy }) => healthy).join()]
          : [],
      );
    }

    test('tell each node every change of a route in order', async () => {
      const seen = [record(cluster.a), record(cluster.b)];
      const first = await cluster.a.openSession(claim());
      const second = await cluster.b.openSession(claim({ slot: 1, nodeId: NODE_B }));
      await cluster.a.register(first, tunnel('api'), PLENTY);
      await cluster.a.register(first, tunnel('api'), PLENTY);
      await cluster.a.register(first, tunnel('api', { healthy: false }), PLENTY);
      await cluster.b.register(second, tunnel('api'), PLENTY);
      await cluster.a.closeSession(first);
      await cluster.b.unregister(second, 'api');
      await cluster.b.unregister(second, 'api');
      await cluster.settled();
      for (const { events } of seen) {
        assert.deepEqual(history(events, 'api'), ['true', 'false', 'false,true', 'true', 'gone']);
      }
    });

    test('carry the route that lookup gives from then on, and what it gave before', async () => {
      const { events } = record(cluster.b);
      const session = await cluster.a.openSession(claim());
      const route = await cluster.a.register(session, tunnel('api'), PLENTY);
      await cluster.settled();
      assert.deepEqual(cluster.b.lookup('api'), route);
      const worse = await cluster.a.register(session, tunnel('api', { healthy: false }), PLENTY);
      await cluster.a.unregister(session, 'api');
      await cluster.settled();
      assert.deepEqual(
        events.filter(({ type }) => type === 'route'),
        [
          { type: 'route', name: 'api', route, before: undefined },
          { type: 'route', name: 'api', route: worse, before: route },
          { type: 'route', name: 'api', route: undefined, before: worse },
        ],
      );
    });

    test('tell each node of every session that opens and closes, once', async () => {
      const seen = [record(cluster.a), record(cluster.b)];
      const first = await cluster.a.openSession(claim());
      const newer = await cluster.b.openSession(claim({ nodeId: NODE_B }));
      await cluster.a.closeSession(first);
      await cluster.b.closeSession(newer);
      await cluster.settled();
      for (const { events } of seen) {
        assert.deepEqual(
          events.filter(({ type }) => type === 'session'),
          [
            { type: 'session', session: first, isOpen: true },
            { type: 'session', session: newer, isOpen: true },
            { type: 'session', session: newer, isOpen: false },
          ],
        );
      }
    });

    test('name the session that was replaced and its node, once', async () => {
      const seen = [record(cluster.a), record(cluster.b)];
      const old = await cluster.a.openSession(claim());
      await cluster.b.openSession(claim({ nodeId: NODE_B }));
      await cluster.settled();
      for (const { events } of seen) {
        const replaced = events.filter((event) => event.type === 'session-replaced');
        assert.deepEqual(replaced, [{ type: 'session-replaced', session: refOf(old), nodeId: NODE_A }]);
      }
    });

    test('of a refused claim do not exist', async () => {
      const session = await cluster.a.openSession(claim());
      const thief = await cluster.a.openSession(claim({ accountId: 'evil', agentId: 'agent-2' }));
      await cluster.a.register(session, tunnel('api'), PLENTY);
      await cluster.settled();
      const { events } = record(cluster.a);
      await assert.rejects(cluster.a.register(thief, tunnel('api'), PLENTY));
      await assert.rejects(cluster.a.register(session, tunnel('two'), 1));
      await assert.rejects(cluster.a.openSession(claim({ slot: 1, maxSessionsPerAccount: 1 })));
      await cluster.settled();
      assert.deepEqual(events, []);
    });

    test('stay in order for all when a listener changes the registry', async () => {
      const session = await cluster.a.openSession(claim());
      const changes: Promise<unknown>[] = [];
      cluster.a.subscribe((event) => {
        if (event.type === 'route' && event.name === 'one')
          changes.push(cluster.a.register(session, tunnel('two'), PLENTY));
      });
      const { events } = record(cluster.a);
      await cluster.a.register(session, tunnel('one'), PLENTY);
      await cluster.settled();
      await Promise.all(changes);
      await cluster.settled();
      assert.deepEqual(
        events.map((event) => event.type === 'route' && event.name),
        ['one', 'two'],
      );
    });

    test('end for a listener that stopped, and for it alone', async () => {
      const stopped = record(cluster.a);
      const going = record(cluster.a);
      stopped.stop();
      stopped.stop();
      await cluster.a.register(await cluster.a.openSession(claim()), tunnel('api'), PLENTY);
      await cluster.settled();
      assert.equal(stopped.events.length, 0);
      assert.deepEqual(
        going.events.map(({ type }) => type),
        ['session', 'route'],
      );
    });
  });
}
