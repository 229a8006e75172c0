import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { until } from '../../testkit/eventually.ts';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { claim } from '../contract/support.contract.ts';
import type { NodeId, NodeInfo, RegistryEvent } from '../registry.ts';
import type { RedisRegistry } from './redis-registry.ts';
import { emptyButOpen, LEASE, openRegistry } from './support.contract.ts';

const A = 'node-a' as NodeId;
const B = 'node-b' as NodeId;

function info(nodeId: NodeId): NodeInfo {
  return { nodeId, relayAddr: `${nodeId}:7443`, agentAddr: `${nodeId}:8443`, version: '1.0.0', startedAt: 1 };
}

describe('the members of a cluster', () => {
  let server: RedisServer;
  let a: RedisRegistry;
  let b: RedisRegistry;
  before(async () => {
    server = await startRedis();
  });
  after(() => server.close());
  beforeEach(async () => {
    await emptyButOpen([server.client]);
    const address = { kind: 'single', url: server.url } as const;
    [a, b] = await Promise.all([openRegistry(A, address), openRegistry(B, address)]);
  });
  afterEach(async () => {
    server.resume();
    await Promise.all([a.close(), b.close()]);
  });

  function members(registry: RedisRegistry): string[] {
    return registry
      .nodes()
      .map(({ nodeId, state }) => `${nodeId} ${state}`)
      .sort();
  }

  test('see each other join, drain and leave', async () => {
    const events: RegistryEvent[] = [];
    b.subscribe((event) => events.push(event));
    assert.deepEqual(a.nodes(), []);
    await a.join({ ...info(A), serverName: 'a.nodes.example' });
    await b.join(info(B));
    await until('both see both', () => a.nodes().length === 2 && b.nodes().length === 2);
    assert.deepEqual(
      b.nodes().find(({ nodeId }) => nodeId === A),
      { ...info(A), serverName: 'a.nodes.example', state: 'up', sessions: 0 },
    );
    await a.setDraining(true);
    await until('B sees it', () => members(b).includes('node-a draining'));
    await a.openSession(claim());
    await until('B sees the session', () => b.nodes().some(({ nodeId, sessions }) => nodeId === A && sessions === 1));
    await a.leave();
    await until('A is gone', () => members(b).join() === 'node-b up');
    const seen = events.flatMap((event) => (event.type === 'node' ? [`${event.nodeId} ${event.node?.state}`] : []));
    assert.deepEqual(seen.sort(), ['node-a draining', 'node-a undefined', 'node-a up', 'node-b up']);
  });

  test('lose one that crashed, within its lease, and none while redis is away', async () => {
    await Promise.all([a.join(info(A)), b.join(info(B))]);
    await until('both see both', () => a.nodes().length === 2 && b.nodes().length === 2);
    server.pause();
    await until('the loss is seen', () => b.unavailable() !== undefined);
    await new Promise((resolve) => setTimeout(resolve, 1.5 * LEASE));
    assert.equal(b.nodes().length, 2);
    server.resume();
    await until('redis is back', () => b.unavailable() === undefined && a.unavailable() === undefined);
    assert.equal(b.nodes().length, 2);
    await new Promise((resolve) => setTimeout(resolve, LEASE));
    await a.close();
    const took = await until('A is gone', () => members(b).join() === 'node-b up', 3 * LEASE);
    assert.ok(took < LEASE + 150, `${took} ms`);
  });

  test('take their sessions along when they die, with or without tunnels', async () => {
    await Promise.all([a.join(info(A)), b.join(info(B))]);
    const lost = await a.openSession(claim({ nodeId: A }));
    const kept = await b.openSession(claim({ nodeId: B, agentId: 'agent-2' }));
    await until('B sees both', () => [...b.sessions()].length === 2);
    // Loss counts as evidence only after the store has been there for a lease.
    await new Promise((resolve) => setTimeout(resolve, LEASE));
    const events: RegistryEvent[] = [];
    b.subscribe((event) => events.push(event));
    await a.close();
    await until('the session of A is gone', () => [...b.sessions()].length === 1, 4 * LEASE);
    assert.deepEqual([...b.sessions()], [kept]);
    assert.equal(b.stats().sessions, 1);
    assert.deepEqual(
      events.filter(({ type }) => type === 'session'),
      [{ type: 'session', session: lost, isOpen: false }],
    );
  });

  test('are there again after the data was wiped', async () => {
    await Promise.all([a.join(info(A)), b.join(info(B))]);
    await server.client.flushall();
    await until('both are back', async () => (await server.client.hlen('culvert:v1:{nodes}:leases')) === 2);
    await until('both see both', () => a.nodes().length === 2 && b.nodes().length === 2);
  });
});
