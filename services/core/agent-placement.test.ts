import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FEATURES } from '../../shared/protocol/messages.ts';
import { type NodeId, type NodeRecord, type SessionRecord, sessionId } from '../../shared/registry/registry.ts';
import { AgentPlacement, type PlacementRequest } from './agent-placement.ts';
import type { HeldSession } from './sessions/session-table.ts';
import { SessionTable } from './sessions/session-table.ts';

/** A node, with what it knows of the others: nothing of their sessions, unless a test says so. */
class FakeNode {
  readonly nodeId: NodeId;
  readonly table = new SessionTable();
  readonly placement: AgentPlacement;
  members: NodeRecord[] = [];
  dead = new Set<string>();
  known: SessionRecord[] = [];

  constructor(name: string) {
    this.nodeId = name as NodeId;
    this.placement = new AgentPlacement({
      nodeId: this.nodeId,
      registry: {
        nodes: () => this.members,
        beside: (id) => this.known.filter((other) => other.id !== id),
      },
      table: this.table,
      isAlive: (nodeId) => !this.dead.has(nodeId),
    });
  }
}

function member(nodeId: string, overrides: Partial<NodeRecord> = {}): NodeRecord {
  return {
    nodeId: nodeId as NodeId,
    relayAddr: `${nodeId}:7443`,
    agentAddr: `${nodeId}:8443`,
    version: '1',
    startedAt: 0,
    state: 'up',
    sessions: 0,
    ...overrides,
  };
}

function cluster(names: readonly string[], overrides: Partial<Record<string, Partial<NodeRecord>>> = {}): FakeNode[] {
  const nodes = names.map((name) => new FakeNode(name));
  for (const node of nodes) node.members = names.map((name) => member(name, overrides[name]));
  return nodes;
}

function get(nodes: readonly FakeNode[], name: string): FakeNode {
  const node = nodes.find(({ nodeId }) => nodeId === name);
  assert.ok(node !== undefined, `there is no ${name}`);
  return node;
}

function request(overrides: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    features: [...FEATURES],
    instance_id: 'i',
    slot: 0,
    redirects: 0,
    sessions: 2,
    other_nodes: [],
    failed_nodes: [],
    ...overrides,
  };
}

function held(isLeaving = false): HeldSession {
  const upstream = { available: true, load: 0, open: () => assert.fail('no stream is opened here') };
  const fixed = {
    ref: undefined,
    accountId: 'a',
    agentId: 'agent',
    figures: undefined,
    close: () => {},
    drain: () => {},
  };
  return { ...fixed, isLeaving, upstream };
}

/** What the agent's process knows, and the steps of its slots. */
class FakeAgent {
  readonly id: string;
  readonly places = new Map<number, string>();
  redirects = 0;

  constructor(id: string) {
    this.id = id;
  }

  /**
   * One slot's way into the cluster; yields between the steps, so that a test can let several go at the same time.
   * @param first where it dials
   */
  *enter(slot: number, first: FakeNode, nodes: readonly FakeNode[], canSay: boolean): Generator<void, void, void> {
    let node = first;
    for (let redirects = 0; ; redirects += 1) {
      const others = [...this.places].flatMap(([other, at]) => (other === slot ? [] : at));
      const asked = request({ slot, redirects, ...(canSay ? { other_nodes: others } : { other_nodes: undefined }) });
      yield;
      const way = node.placement.elsewhere(this.id, asked);
      if (way === undefined) break;
      this.redirects += 1;
      node = get(nodes, way.nodeId);
      yield;
    }
    const id = sessionId(this.id, 'i', slot);
    const arrived = node.table.expect(id);
    yield;
    node.table.add(held(), { id, epoch: 1 }, 'a');
    arrived();
    yield;
    this.places.set(slot, node.nodeId);
  }
}

/** Lets all go on, one step of a random one at a time. */
function interleave(ways: Generator<void, void, void>[], random: () => number): void {
  const left = [...ways];
  while (left.length > 0) {
    const at = Math.floor(random() * left.length);
    if (left[at]?.next().done === true) left.splice(at, 1);
  }
}

/** Numerical Recipes' generator: the same cases in each run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe('the sessions of one process', () => {
  for (const canSay of [true, false]) {
    const how = canSay ? 'that says where its others are' : 'that does not say where its others are';
    test(`${how} come to different nodes, whichever they dial and however their ways cross`, () => {
      const random = generator(7);
      let redirects = 0;
      const clusters = [2, 3, 4].map((size) => cluster(['n1', 'n2', 'n3', 'n4'].slice(0, size)));
      for (let round = 0; round < 3000; round += 1) {
        const nodes = clusters[round % 3] ?? assert.fail();
        const agent = new FakeAgent(`agent-${round}`);
        const anyNode = (): FakeNode => nodes[Math.floor(random() * nodes.length)] ?? assert.fail();
        interleave(
          [0, 1].map((slot) => agent.enter(slot, anyNode(), nodes, canSay)),
          random,
        );
        assert.equal(new Set(agent.places.values()).size, 2, `round ${round}: ${[...agent.places.values()]}`);
        redirects += agent.redirects;
      }
      assert.ok(redirects < 3000 * 2, `${redirects} redirects`);
    });
  }

  test('stay together on a node that is alone', () => {
    const [alone] = cluster(['n1']);
    assert.equal(alone?.placement.elsewhere('agent', request({ slot: 1, other_nodes: ['n1'] })), undefined);
  });

  test('are not sent on a third time, and without the feature not a second time', () => {
    const [here] = cluster(['n1', 'n2']);
    const asked = (redirects: number, features: string[]): unknown =>
      here?.placement.elsewhere('agent', request({ slot: 1, other_nodes: ['n1'], redirects, features }))?.nodeId;
    assert.deepEqual(
      [0, 1, 2].map((redirects) => asked(redirects, ['spread'])),
      ['n2', 'n2', undefined],
    );
    assert.deepEqual(
      [0, 1].map((redirects) => asked(redirects, ['flow-control'])),
      ['n2', undefined],
    );
  });

  test('avoid a node that failed or does not answer, but rather try one of these than share a node', () => {
    const [here] = cluster(['n1', 'n2', 'n3']);
    assert.ok(here !== undefined);
    const ask = (failed: string[]): unknown =>
      here.placement.elsewhere('agent', request({ slot: 1, other_nodes: ['n1'], failed_nodes: failed }))?.nodeId;
    assert.equal(ask(['n2']), 'n3');
    assert.equal(ask(['n3']), 'n2');
    here.dead.add('n3');
    assert.equal(ask([]), 'n2');
    assert.equal(ask(['n2']), 'n2');
    assert.equal(ask(['n3', 'n2']), 'n2');
    here.dead.add('n2');
    assert.equal(ask(['n2']), 'n3');
    assert.equal(ask(['n2', 'n3']), undefined);
  });

  test('do not count one that was told to go', () => {
    const [here] = cluster(['n1', 'n2']);
    here?.table.add(held(true), { id: sessionId('agent', 'i', 1), epoch: 1 }, 'a');
    assert.equal(here?.placement.elsewhere('agent', request()), undefined);
  });
});

describe('a session that is asked for', () => {
  const names = ['n1', 'n2', 'n3', 'n4', 'n5'];

  test('is sent once to a node of the ring, and every node names the same ones', () => {
    const nodes = cluster(names);
    for (let i = 0; i < 200; i += 1) {
      const stays = nodes.filter((node) => node.placement.elsewhere(`agent-${i}`, request()) === undefined);
      const sent = nodes.flatMap((node) => node.placement.elsewhere(`agent-${i}`, request())?.nodeId ?? []);
      assert.equal(stays.length, 2);
      assert.equal(new Set(sent).size, 1);
      assert.ok(stays.some(({ nodeId }) => nodeId === sent[0]));
      for (const node of nodes) {
        assert.equal(node.placement.elsewhere(`agent-${i}`, request({ redirects: 1 })), undefined);
      }
    }
  });

  test('is not sent to a node that drains, that agents cannot reach, that failed it or that does not answer', () => {
    const nodes = cluster(names, { n2: { state: 'draining' }, n3: { agentAddr: '' } });
    for (const node of nodes) node.dead.add('n4');
    for (let i = 0; i < 200; i += 1) {
      const way = get(nodes, 'n1').placement.elsewhere(`agent-${i}`, request({ failed_nodes: ['n5'] }));
      assert.equal(way, undefined);
    }
    const allowed = Array.from({ length: 200 }, (_, i) =>
      get(nodes, 'n1').placement.elsewhere(`agent-${i}`, request({ sessions: 1 })),
    );
    assert.deepEqual(new Set(allowed.map((way) => way?.nodeId)), new Set([undefined, 'n5']));
  });

  test('leaves a node that drains, also for one with another session of it when nothing else is left', () => {
    const nodes = cluster(names, { n1: { state: 'draining' } });
    for (let i = 0; i < 50; i += 1) {
      const ask = (...others: string[]): unknown =>
        get(nodes, 'n1').placement.elsewhere(`agent-${i}`, request({ redirects: 1, other_nodes: others }))?.nodeId;
      assert.notEqual(ask(), undefined);
      assert.equal(ask('n2', 'n3', 'n4'), 'n5');
      assert.notEqual(ask('n2', 'n3', 'n4', 'n5'), undefined);
    }
  });
});

describe('the sessions of a node that leaves', () => {
  const record = (agentId: string, slot: number, nodeId = 'n1'): SessionRecord => ({
    id: sessionId(agentId, 'i', slot),
    epoch: 1,
    agentId,
    accountId: 'a',
    instanceId: 'i',
    slot,
    nodeId: nodeId as NodeId,
    openedAt: 0,
  });

  test('go where no other session of their process is, while there is such a node', () => {
    for (const [members, next] of [
      [['n1', 'n2', 'n3'], 'n3'],
      [['n1', 'n2'], 'n2'],
    ] as const) {
      const leaving = new FakeNode('n1');
      leaving.members = members.map((name) => member(name));
      for (let i = 0; i < 200; i += 1) {
        leaving.known = [record(`agent-${i}`, 1, 'n2')];
        assert.equal(leaving.placement.nextFor(record(`agent-${i}`, 0))?.nodeId, next);
      }
    }
  });

  test('go to different nodes when both were there', () => {
    const leaving = new FakeNode('n1');
    leaving.members = ['n1', 'n2', 'n3'].map((name) => member(name));
    for (let i = 0; i < 200; i += 1) {
      const agentId = `agent-${i}`;
      leaving.known = [0, 1].map((slot) => record(agentId, slot));
      const next = [0, 1].map((slot) => leaving.placement.nextFor(record(agentId, slot))?.nodeId);
      assert.deepEqual(new Set(next), new Set(['n2', 'n3']));
    }
  });
});

describe('a node that only a balancer reaches, by server name', () => {
  const byName = { agentAddr: '', serverName: 'n2.agents.test' };
  const inReach = (features: readonly string[]) => {
    const nodes = cluster(['n1', 'n2'], { n1: { agentAddr: '' }, n2: byName });
    const [first] = nodes;
    assert.ok(first !== undefined);
    return first.placement.elsewhere('agent', request({ features: [...features], other_nodes: ['n1'] }));
  };

  test('gets the agents that can ask for it', () => {
    assert.deepEqual(inReach(FEATURES), { nodeId: 'n2', address: undefined, serverName: 'n2.agents.test' });
  });

  test('gets no agent that cannot', () => {
    assert.equal(inReach(FEATURES.filter((feature) => feature !== 'server-name')), undefined);
  });
});
