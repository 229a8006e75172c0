import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { describe, test } from 'node:test';
import { promisify } from 'node:util';
import type { NodeId } from '../registry/registry.ts';
import { Placement, type PlacementMember } from './placement.ts';

const AGENTS = 10_000;
const agents = Array.from({ length: AGENTS }, (_, i) => `agent-${i}`);

function member(id: string, sessions = 0, state: PlacementMember['state'] = 'active'): PlacementMember {
  return { nodeId: id as NodeId, sessions, state };
}

function nodes(count: number): PlacementMember[] {
  return Array.from({ length: count }, (_, i) => member(`node-${i + 1}`));
}

/** A cluster whose loads follow what is placed on it. */
class Cluster {
  readonly placement = new Placement();
  readonly home = new Map<string, NodeId>();
  readonly load = new Map<NodeId, number>();

  constructor(count: number) {
    for (const { nodeId } of nodes(count)) this.load.set(nodeId, 0);
  }

  get members(): PlacementMember[] {
    return [...this.load].map(([nodeId, sessions]) => ({ nodeId, sessions, state: 'active' }));
  }

  /** Places the agent by the loads of now. Returns whether it moved. */
  place(agent: string): boolean {
    const before = this.home.get(agent);
    const [after] = this.placement.nodesFor(agent, 1, this.members, before === undefined ? [] : [before]);
    assert.ok(after !== undefined);
    if (after === before) return false;
    if (before !== undefined) this.load.set(before, (this.load.get(before) ?? 0) - 1);
    this.load.set(after, (this.load.get(after) ?? 0) + 1);
    this.home.set(agent, after);
    return true;
  }
}

function firstChoices(members: PlacementMember[], placement = new Placement()): Map<string, NodeId> {
  return new Map(agents.map((agent) => [agent, placement.nodesFor(agent, 1, members)[0] ?? ('none' as NodeId)]));
}

function moved(before: Map<string, NodeId>, after: Map<string, NodeId>): string[] {
  return agents.filter((agent) => before.get(agent) !== after.get(agent));
}

describe('a node that joins', () => {
  test('as the fourth takes about a quarter of 10,000 agents, and every agent that moves goes to it', () => {
    const before = firstChoices(nodes(3));
    const after = firstChoices(nodes(4));
    const movers = moved(before, after);
    // A quarter is 2,500. Its share of the ring deviates by about 1/√640 = 4 %; three deviations are 300.
    assert.ok(movers.length >= 2200 && movers.length <= 2800, `${movers.length} agents moved`);
    for (const agent of movers) assert.equal(after.get(agent), 'node-4');
  });

  test('takes no more than its share and the load bound while loads are counted, one agent after another', () => {
    const cluster = new Cluster(3);
    for (const agent of agents) cluster.place(agent);
    cluster.load.set('node-4' as NodeId, 0);
    const movers = agents.filter((agent) => cluster.place(agent));
    assert.ok(movers.length >= 2200 && movers.length <= 2800, `${movers.length} agents moved`);
    for (const agent of movers) assert.equal(cluster.home.get(agent), 'node-4');
    assert.ok(Math.max(...cluster.load.values()) <= cluster.placement.capacity(cluster.members));
    // The very first agents found "full" nodes with one agent each; they go home once, and then nobody moves any more.
    assert.ok(agents.filter((agent) => cluster.place(agent)).length <= 10);
    assert.equal(agents.filter((agent) => cluster.place(agent)).length, 0);
  });

  test('moves 1/N of the agents also to cluster sizes at which the package loses a point by rounding', () => {
    for (const size of [6, 7, 13, 48]) {
      const before = firstChoices(nodes(size));
      const after = firstChoices(nodes(size + 1));
      const movers = moved(before, after);
      assert.ok(movers.length <= (1.3 * AGENTS) / (size + 1), `${size} + 1 nodes: ${movers.length} agents moved`);
      for (const agent of movers) assert.equal(after.get(agent), `node-${size + 1}`);
    }
  });
});

describe('a node that leaves', () => {
  test('moves its own agents and no others, whether it drains or is gone', () => {
    const all = nodes(4);
    const before = firstChoices(all);
    const gone = firstChoices(all.filter(({ nodeId }) => nodeId !== 'node-2'));
    const draining = firstChoices(
      all.map((each) => (each.nodeId === 'node-2' ? { ...each, state: 'draining' } : each)),
    );
    const movers = moved(before, gone);
    assert.deepEqual(new Set(movers.map((agent) => before.get(agent))), new Set(['node-2']));
    assert.equal(movers.length, agents.filter((agent) => before.get(agent) === 'node-2').length);
    assert.deepEqual(draining, gone);
  });
});

describe('the load bound', () => {
  test('holds at every step while 10,000 agents come to 3, 7 and 20 nodes', () => {
    for (const size of [3, 7, 20]) {
      const cluster = new Cluster(size);
      for (const agent of agents) {
        const capacity = cluster.placement.capacity(cluster.members, 1);
        cluster.place(agent);
        const at = cluster.home.get(agent);
        assert.ok(at !== undefined && (cluster.load.get(at) ?? 0) <= capacity);
      }
      assert.ok(Math.max(...cluster.load.values()) <= Math.ceil((1.25 * AGENTS) / size));
    }
  });

  test('passes a full node over for an agent that comes, and keeps one that it has', () => {
    const placement = new Placement();
    const [home] = placement.nodesFor('agent', 1, nodes(3));
    assert.ok(home !== undefined);
    const loaded = nodes(3).map((each) =>
      each.nodeId === home ? { ...each, sessions: 90 } : { ...each, sessions: 30 },
    );
    assert.equal(placement.capacity(loaded), 63);
    assert.notEqual(placement.nodesFor('agent', 1, loaded)[0], home);
    assert.deepEqual(placement.nodesFor('agent', 1, loaded, [home]), [home]);
  });

  test('gives way, the least loaded node first, when an agent wants more nodes than have room', () => {
    const loaded = [member('a', 100), member('b', 90), member('c', 0)];
    assert.deepEqual(new Placement().nodesFor('agent', 3, loaded), ['c', 'b', 'a']);
    assert.deepEqual(new Placement({ loadFactor: 1.01 }).nodesFor('agent', 2, loaded), ['c', 'b']);
  });

  test('must be above the average', () => {
    for (const loadFactor of [1, 0, Number.NaN]) {
      assert.throws(() => new Placement({ loadFactor }), { code: 'invalid_config' });
    }
  });
});

describe('the nodes of an agent', () => {
  test('are as many different active ones as it wants, or as there are', () => {
    const placement = new Placement();
    assert.equal(new Set(placement.nodesFor('agent', 2, nodes(4))).size, 2);
    assert.equal(placement.nodesFor('agent', 5, nodes(3)).length, 3);
    const members = [member('a', 0, 'draining'), member('b'), member('c', 0, 'draining')];
    assert.deepEqual(placement.nodesFor('agent', 2, members), ['b']);
    assert.deepEqual(placement.nodesFor('agent', 2, []), []);
    assert.deepEqual(placement.nodesFor('agent', 2, [member('a', 0, 'draining')]), []);
  });

  test('have a second choice that becomes the first when the first leaves', () => {
    const placement = new Placement();
    for (const agent of agents.slice(0, 50)) {
      const [first, second] = placement.nodesFor(agent, 2, nodes(4));
      const left = nodes(4).filter(({ nodeId }) => nodeId !== first);
      assert.equal(placement.nodesFor(agent, 1, left)[0], second);
    }
  });

  test('do not depend on the order of the members, also when ids look like numbers or addresses', () => {
    const ids = ['10', '9', 'a:1', 'a:2', 'constructor', 'B@x', 'node_1.example'];
    const members = ids.map((id) => member(id));
    const [one, other] = [firstChoices(members), firstChoices([...members].reverse())];
    assert.deepEqual(one, other);
    assert.equal(new Set(one.values()).size, ids.length);
  });

  test('follow a change of members that keeps their number', () => {
    const placement = new Placement();
    firstChoices(nodes(3), placement);
    const changed = [member('node-1'), member('node-2'), member('other')];
    assert.deepEqual(firstChoices(changed, placement), firstChoices(changed));
  });

  test('are the same in another process', async () => {
    const script = `
      import { Placement } from ${JSON.stringify(new URL('./placement.ts', import.meta.url).href)};
      const members = ['node-3', 'node-1', 'node-2'].map((nodeId) => ({ nodeId, sessions: 0, state: 'active' }));
      const placement = new Placement();
      const all = Array.from({ length: 1000 }, (_, i) => placement.nodesFor('agent-' + i, 2, members).join());
      console.log(JSON.stringify(all));`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      ...['--import', 'tsx', '--input-type=module', '--eval', script],
    ]);
    const placement = new Placement();
    assert.deepEqual(
      JSON.parse(stdout),
      agents.slice(0, 1000).map((agent) => placement.nodesFor(agent, 2, nodes(3)).join()),
    );
  });
});
