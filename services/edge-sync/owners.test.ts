import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Endpoint, NodeId, Route, SessionId } from '../../shared/registry/registry.ts';
import { ownersOf } from './owners.ts';

function route(name: string, ...endpoints: readonly (string | { sick: string })[]): Route {
  return {
    name,
    accountId: 'account',
    createdAt: 0,
    endpoints: endpoints.map((each, i): Endpoint => {
      const nodeId = (typeof each === 'string' ? each : each.sick) as NodeId;
      const session = { id: `agent/instance/${i}` as SessionId, epoch: i };
      return { session, nodeId, agentId: 'agent', localAddr: '', healthy: typeof each === 'string' };
    }),
  };
}

const anyNode = (): boolean => true;

describe('the owners of a tunnel', () => {
  test('are the nodes of its endpoints, each once, in an order of their own', () => {
    assert.deepEqual(ownersOf(route('x', 'b', 'a', 'b'), anyNode), ['a', 'b']);
    assert.deepEqual(ownersOf(route('x'), anyNode), []);
  });

  test('are only nodes that visitors may be sent to', () => {
    assert.deepEqual(
      ownersOf(route('x', 'a', 'b'), (node) => node !== 'a'),
      ['b'],
    );
  });

  test('have a healthy endpoint, unless none has', () => {
    assert.deepEqual(ownersOf(route('x', 'a', { sick: 'b' }), anyNode), ['a']);
    assert.deepEqual(ownersOf(route('x', { sick: 'b' }), anyNode), ['b']);
    assert.deepEqual(
      ownersOf(route('x', 'a', { sick: 'b' }), (node) => node !== 'a'),
      ['b'],
    );
  });

  test('are two of many, which stay when a third goes, and spread over all nodes', () => {
    const nodes = ['a', 'b', 'c', 'd', 'e'];
    const load = new Map<string, number>();
    for (let i = 0; i < 5000; i += 1) {
      const name = `tunnel-${i}`;
      const owners = ownersOf(route(name, ...nodes), anyNode);
      assert.equal(owners.length, 2);
      for (const owner of owners) load.set(owner, (load.get(owner) ?? 0) + 1);
      const gone = nodes.find((node) => !owners.includes(node as NodeId));
      assert.deepEqual(ownersOf(route(name, ...nodes.filter((node) => node !== gone)), anyNode), owners);
    }
    for (const [node, count] of load) assert.ok(count > 1600 && count < 2400, `${node} has ${count} of 10,000`);
  });
});
