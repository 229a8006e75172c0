import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NodeId } from '../../shared/registry/registry.ts';
import type { ServerRow } from './servers-state.ts';
import { planSlots, type SlotTarget } from './slots.ts';

const BACKENDS = ['cores', 'cores_h2', 'agent_cores'];

/** HAProxy as far as its servers go: takes the commands of a plan. */
class FakeHaproxy {
  rows: ServerRow[];

  constructor(slots: number) {
    this.rows = BACKENDS.flatMap((backend) =>
      Array.from({ length: slots }, (_, i) => ({
        backend,
        server: `core${i + 1}`,
        address: '127.0.0.1',
        port: 1,
        checkPort: 9000,
        isUp: false,
        admin: 'maint' as const,
      })),
    );
  }

  run(commands: readonly string[]): void {
    for (const command of commands) {
      const [, name = '', action, ...rest] = /^set server (\S+) (\S+) (.*)$/.exec(command) ?? [];
      const [value = ''] = rest;
      const change: Partial<Record<keyof ServerRow, unknown>> =
        action === 'addr'
          ? { address: value.split(' ')[0], port: Number(value.split(' ')[2]) }
          : action === 'check-port'
            ? { checkPort: Number(value) }
            : action === 'state'
              ? { admin: value, isUp: value === 'ready' || this.row(name).isUp }
              : { isUp: value !== 'down' };
      this.rows = this.rows.map((row) =>
        `${row.backend}/${row.server}` === name ? { ...row, ...change } : row,
      ) as ServerRow[];
    }
  }

  setUp(server: string, isUp: boolean): void {
    this.rows = this.rows.map((row) => (row.server === server ? { ...row, isUp } : row));
  }

  row(name: string): ServerRow {
    const row = this.rows.find(({ backend, server }) => `${backend}/${server}` === name);
    assert.ok(row !== undefined, name);
    return row;
  }

  /** Plans and runs until nothing is left to say. @returns the last plan */
  settle(targets: readonly SlotTarget[]): ReturnType<typeof planSlots> {
    this.run(planSlots(this.rows, targets).commands);
    const after = planSlots(this.rows, targets);
    assert.deepEqual(after.commands, [], 'the same plan again has something to say');
    return after;
  }
}

function target(name: string, last: number, draining = false): SlotTarget {
  return {
    nodeIds: [name as NodeId],
    address: `10.0.0.${last}`,
    publicPort: 8080,
    agentPort: 8443,
    healthPort: 9001,
    draining,
  };
}

describe('the plan of slots', () => {
  test('gives each node a slot in every backend, with the port of that backend and of the health check', () => {
    const haproxy = new FakeHaproxy(3);
    const plan = haproxy.settle([target('a', 1), target('b', 2)]);
    assert.deepEqual(
      [...plan.servers],
      [
        ['a', 'core1'],
        ['b', 'core2'],
      ],
    );
    assert.equal(plan.free, 1);
    for (const [backend, port] of [
      ['cores', 8080],
      ['cores_h2', 8080],
      ['agent_cores', 8443],
    ]) {
      const { address, port: set, checkPort, admin } = haproxy.row(`${backend}/core2`);
      assert.deepEqual([address, set, checkPort, admin], ['10.0.0.2', port, 9001, 'ready']);
      assert.equal(haproxy.row(`${backend}/core3`).admin, 'maint');
    }
  });

  test('trusts the first nodes at once, and a later one when its checks are good', () => {
    const haproxy = new FakeHaproxy(3);
    haproxy.settle([target('a', 1)]);
    assert.equal(haproxy.row('cores/core1').isUp, true);
    haproxy.settle([target('a', 1), target('b', 2)]);
    assert.equal(haproxy.row('cores/core2').isUp, false);
  });

  test('keeps the slots of those that stay, whoever comes and goes', () => {
    const haproxy = new FakeHaproxy(4);
    haproxy.settle([target('b', 2), target('c', 3)]);
    const { servers } = haproxy.settle([target('a', 1), target('c', 3), target('d', 4)]);
    assert.equal(servers.get('c' as NodeId), 'core2');
    assert.deepEqual([...servers.values()].sort(), ['core2', 'core3', 'core4']);
  });

  test('gives a node that comes back to its address its old slot', () => {
    const haproxy = new FakeHaproxy(3);
    haproxy.settle([target('a', 1), target('b', 2)]);
    haproxy.setUp('core2', true);
    haproxy.setUp('core1', false);
    haproxy.settle([target('b', 2)]);
    assert.equal(haproxy.row('cores/core1').admin, 'maint');
    const { servers } = haproxy.settle([target('a-again', 1), target('b', 2)]);
    assert.equal(servers.get('a-again' as NodeId), 'core1');
    assert.equal(haproxy.row('cores/core1').admin, 'ready');
  });

  test('drains a node that drains or is gone from the registry, and gives its slot up only once it is dead', () => {
    const haproxy = new FakeHaproxy(2);
    haproxy.settle([target('a', 1), target('b', 2)]);
    haproxy.setUp('core2', true);
    haproxy.settle([target('a', 1, true), target('b', 2)]);
    assert.equal(haproxy.row('agent_cores/core1').admin, 'drain');
    haproxy.settle([target('b', 2)]);
    assert.equal(haproxy.row('cores/core1').admin, 'drain');
    haproxy.setUp('core1', false);
    haproxy.settle([target('b', 2)]);
    assert.equal(haproxy.row('cores/core1').admin, 'maint');
  });

  test('never takes the last node away that answers, whatever the registry says', () => {
    const haproxy = new FakeHaproxy(2);
    haproxy.settle([target('a', 1)]);
    haproxy.settle([]);
    assert.equal(haproxy.row('cores/core1').admin, 'ready');
    haproxy.settle([target('a', 1, true)]);
    assert.equal(haproxy.row('cores/core1').admin, 'ready');
    haproxy.settle([target('a', 1, true), target('b', 2)]);
    assert.equal(haproxy.row('cores/core1').admin, 'ready', 'the other one is not up yet');
    haproxy.setUp('core2', true);
    haproxy.settle([target('a', 1, true), target('b', 2)]);
    assert.equal(haproxy.row('cores/core1').admin, 'drain');
  });

  test('names the nodes that find no slot, and makes room at the cost of those that are gone', () => {
    const haproxy = new FakeHaproxy(2);
    haproxy.settle([target('a', 1), target('b', 2)]);
    haproxy.setUp('core2', true);
    const full = haproxy.settle([target('a', 1), target('b', 2), target('c', 3)]);
    assert.deepEqual(full.unplaced, ['c']);
    const { servers, unplaced } = haproxy.settle([target('b', 2), target('c', 3)]);
    assert.deepEqual(unplaced, []);
    assert.equal(servers.get('c' as NodeId), 'core1');
    assert.equal(haproxy.row('cores/core1').address, '10.0.0.3');
    assert.equal(haproxy.row('cores/core1').isUp, false, 'the health of the node before it was taken for its own');
  });

  test('leaves a configuration without one of the backends alone in that', () => {
    const haproxy = new FakeHaproxy(1);
    haproxy.rows = haproxy.rows.filter(({ backend }) => backend === 'cores');
    const { servers } = haproxy.settle([target('a', 1)]);
    assert.equal(servers.get('a' as NodeId), 'core1');
  });
});
