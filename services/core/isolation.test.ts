import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { ClusterCalls } from '../../shared/control/calls.ts';
import { CulvertError } from '../../shared/errors/codes.ts';
import { createLogger } from '../../shared/observability/logger.ts';
import type { NodeId } from '../../shared/registry/registry.ts';
import { IsolationWatch } from './isolation.ts';

describe('the watch for a node that alone is cut off from the registry', () => {
  function setUp(t: TestContext) {
    let now = 1000;
    const state = { away: false, peers: new Map<string, boolean | 'silent'>(), asked: 0, changes: [] as boolean[] };
    t.mock.method(performance, 'now', () => now);
    t.mock.timers.enable({ apis: ['setInterval'] });
    const calls = {
      nodeId: 'me' as NodeId,
      call: async (peer: NodeId) => {
        state.asked += 1;
        const available = state.peers.get(peer);
        if (available === 'silent') throw new CulvertError('timeout');
        return { registry: { available } };
      },
    };
    const watch = new IsolationWatch({
      problem: () => (state.away ? new CulvertError('registry_unavailable') : undefined),
      peers: () => [...state.peers.keys()] as NodeId[],
      // Of the answer of `inspect` only the part that is looked at is here.
      calls: calls as unknown as ClusterCalls,
      onChange: (isIsolated) => state.changes.push(isIsolated),
      log: createLogger({ level: 'silent', name: 'test' }),
    });
    t.after(() => watch.close());
    const live = async (seconds: number): Promise<void> => {
      for (let i = 0; i < seconds; i += 1) {
        now += 1000;
        t.mock.timers.tick(1000);
        // The answers of the others arrive.
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    return { state, watch, live };
  }

  test('asks nobody while the registry is there, or away for a moment', async (t) => {
    const { state, live } = setUp(t);
    state.peers.set('one', true);
    await live(60);
    state.away = true;
    await live(3);
    state.away = false;
    await live(10);
    assert.deepEqual([state.asked, state.changes], [0, []]);
  });

  test('says so when another node still reaches the registry, until this one does again', async (t) => {
    const { state, watch, live } = setUp(t);
    state.peers.set('one', 'silent').set('two', true);
    state.away = true;
    await live(6);
    assert.equal(watch.isIsolated, true);
    state.away = false;
    await live(1);
    assert.equal(watch.isIsolated, false);
    assert.deepEqual(state.changes, [true, false]);
  });

  test('says nothing when the registry is away for all, or no other node answers', async (t) => {
    const { state, live } = setUp(t);
    state.peers.set('one', false).set('two', 'silent');
    state.away = true;
    await live(30);
    assert.ok(state.asked > 0);
    assert.deepEqual(state.changes, []);
  });

  test('takes it back when the others lose the registry too: somebody has to serve', async (t) => {
    const { state, live } = setUp(t);
    state.peers.set('one', true);
    state.away = true;
    await live(6);
    state.peers.set('one', false);
    await live(2);
    assert.deepEqual(state.changes, [true, false]);
  });
});
