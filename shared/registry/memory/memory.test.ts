import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EventFeed } from '../event-feed.ts';
import { registryContract } from '../registry.contract.ts';
import { agentOf, type NodeId, type RegistryEvent, type SessionClaim, sessionId } from '../registry.ts';
import { createMemoryRegistry } from './memory-registry.ts';

registryContract('memory', async () => {
  const registry = createMemoryRegistry();
  return { a: registry, b: registry, settled: async () => {}, close: () => registry.close() };
});

const CLAIM: SessionClaim = {
  agentId: 'agent',
  accountId: 'acme',
  instanceId: 'i',
  slot: 0,
  nodeId: 'n' as NodeId,
  maxSessionsPerAccount: 10,
};

describe('the memory registry', () => {
  test('takes epochs from the clock and never goes back with it', async () => {
    let now = 1000;
    const registry = createMemoryRegistry({ clock: () => now });
    const first = await registry.openSession(CLAIM);
    assert.deepEqual([first.epoch, first.openedAt], [1000, 1000]);
    now = 5000;
    assert.equal((await registry.openSession(CLAIM)).epoch, 5000);
    now = 10;
    const late = await registry.openSession(CLAIM);
    assert.deepEqual([late.epoch, late.openedAt], [5001, 10]);
    await registry.closeSession(late);
    assert.equal((await registry.openSession(CLAIM)).epoch, 5002);
    const { createdAt } = await registry.register(
      { id: late.id, epoch: 5002 },
      { name: 'api', localAddr: '', healthy: true },
      1,
    );
    assert.equal(createdAt, 10);
  });

  test('keeps nothing of sessions and names that are gone', async () => {
    const registry = createMemoryRegistry();
    const events: RegistryEvent[] = [];
    registry.subscribe((event) => events.push(event));
    for (let i = 0; i < 50; i += 1) {
      const session = await registry.openSession({ ...CLAIM, instanceId: `i${i}`, maxSessionsPerAccount: 1 });
      await registry.register(session, { name: `t${i}`, localAddr: '', healthy: true }, 1);
      await registry.closeSession(session);
    }
    assert.deepEqual(registry.stats(), { tunnels: 0, endpoints: 0, sessions: 0 });
    assert.equal(events.filter(({ type }) => type === 'route').length, 100);
  });
});

describe('the one member of a memory registry', () => {
  const info = { nodeId: 'n' as NodeId, relayAddr: 'r:1', agentAddr: 'a:1', version: '1', startedAt: 1 };

  test('is itself, from joining to leaving', async () => {
    const registry = createMemoryRegistry();
    const events: RegistryEvent[] = [];
    registry.subscribe((event) => events.push(event));
    await registry.setDraining(true);
    await registry.leave();
    assert.deepEqual([registry.nodes(), events], [[], []]);
    await registry.join(info);
    assert.deepEqual(registry.nodes(), [{ ...info, state: 'up', sessions: 0 }]);
    await registry.setDraining(true);
    await registry.setDraining(true);
    assert.deepEqual(registry.nodes(), [{ ...info, state: 'draining', sessions: 0 }]);
    await registry.leave();
    assert.deepEqual(registry.nodes(), []);
    assert.deepEqual(
      events.map((event) => event.type === 'node' && (event.node?.state ?? 'gone')),
      ['up', 'draining', 'gone'],
    );
  });
});

describe('a session id', () => {
  test('names its agent, and no two sessions share one', () => {
    for (const agent of ['plain', 'a/b', '100%', 'ü ?']) assert.equal(agentOf(sessionId(agent, 'i/1', 2)), agent);
    assert.notEqual(sessionId('a/b', 'c', 0), sessionId('a', 'b/c', 0));
    assert.equal(sessionId('agent-1', 'i1', 0), 'agent-1/i1/0');
  });
});

describe('the event feed', () => {
  test('goes on after a listener threw, and warns of it', async (t) => {
    const warnings: string[] = [];
    t.mock.method(process, 'emitWarning', (warning: Error) => warnings.push(warning.message));
    const feed = new EventFeed<number>();
    const seen: number[] = [];
    feed.subscribe(() => {
      throw new Error('broken listener');
    });
    feed.subscribe((event) => seen.push(event));
    feed.publish(1);
    feed.publish(2);
    assert.deepEqual(seen, [1, 2]);
    assert.deepEqual(warnings, ['broken listener', 'broken listener']);
  });

  test('does not tell a listener of the event during which it subscribed or after it was stopped', () => {
    const feed = new EventFeed<number>();
    const seen: string[] = [];
    let stopLast = () => {};
    feed.subscribe((event) => {
      if (event !== 1) return;
      feed.subscribe((later) => seen.push(`new ${later}`));
      stopLast();
    });
    stopLast = feed.subscribe((event) => seen.push(`last ${event}`));
    feed.publish(1);
    feed.publish(2);
    assert.deepEqual(seen, ['new 2']);
  });
});
