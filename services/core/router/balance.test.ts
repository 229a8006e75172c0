import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { Balance } from '../../../shared/policy/tunnel-policy.ts';
import type { Upstream } from '../../../shared/protocol/stream-types.ts';
import { createMemoryRegistry } from '../../../shared/registry/memory/memory-registry.ts';
import type { NodeId, Registry, Route, SessionRecord } from '../../../shared/registry/registry.ts';
import { SessionTable } from '../sessions/session-table.ts';
import { Affinity } from './affinity.ts';
import { type Choice, Router } from './router.ts';

const HERE = 'here' as NodeId;
const THERE = 'there' as NodeId;

/** A place that requests can be sent to. Nothing is: only its load and whether it answers count. */
class Place implements Upstream {
  available = true;
  load = 0;
  open(): never {
    throw new Error('nothing is sent in these tests');
  }
}

class Fixture {
  readonly registry: Registry = createMemoryRegistry();
  readonly table = new SessionTable();
  readonly link = new Place();
  readonly router: Router;
  readonly #places = new Map<string, Place>();
  #random = 0;

  constructor(context: TestContext, secret = 'one secret of the whole cluster') {
    this.router = new Router({
      registry: this.registry,
      table: this.table,
      nodeId: HERE,
      linkTo: (nodeId) => (nodeId === THERE ? this.link : undefined),
      affinity: new Affinity(secret),
      random: () => this.#random,
    });
    context.after(() => {
      this.router.close();
      return this.registry.close();
    });
  }

  /** A session of an agent that serves the tunnel. */
  async add(agentId: string, nodeId: NodeId, balance: Balance, slot = 0): Promise<SessionRecord> {
    const claim = { agentId, accountId: 'acme', instanceId: `${agentId}-1`, slot, nodeId, maxSessionsPerAccount: 100 };
    const session = await this.registry.openSession(claim);
    if (nodeId === HERE) {
      const place = new Place();
      this.#places.set(session.id, place);
      this.table.add(heldBy(session, place), session, 'acme');
    }
    await this.report(session, balance, true);
    return session;
  }

  async report(session: SessionRecord, balance: Balance, healthy: boolean): Promise<void> {
    await this.registry.register(session, { name: 'api', localAddr: '', healthy, policy: { balance } }, 100);
  }

  place(session: SessionRecord): Place {
    const place = this.#places.get(session.id);
    assert.ok(place);
    return place;
  }

  get route(): Route {
    const route = this.router.route('api');
    assert.ok(route);
    return route;
  }

  choose(): Choice | undefined {
    this.#random = (this.#random + 0.37) % 1;
    return this.router.choose(this.route, []);
  }

  /** One request of a visitor with these cookies: who serves it, and the cookie that is set. */
  visit(cookies = ''): { agent: string | undefined; set: string | undefined; isRelayed: boolean | undefined } {
    this.#random = (this.#random + 0.37) % 1;
    const { route } = this;
    const visit = this.router.visit(route, cookies === '' ? [] : ['Cookie', cookies]);
    assert.ok(visit);
    const choice = this.router.choose(route, [], visit);
    const set = choice && this.router.cookie(route, choice, visit, false);
    return { agent: choice?.endpoint.agentId, set: set?.split(';')[0], isRelayed: choice?.isRelayed };
  }
}

function heldBy(session: SessionRecord, upstream: Upstream): Parameters<SessionTable['add']>[0] {
  const unused = (): never => assert.fail('not used by the router');
  return {
    ref: session,
    agentId: session.agentId,
    accountId: 'acme',
    figures: undefined,
    isLeaving: false,
    upstream,
    drain: unused,
    close: unused,
  };
}

function sequence(fixture: Fixture, length: number): string {
  return Array.from({ length }, () => fixture.choose()?.endpoint.agentId).join(' ');
}

describe('a round-robin tunnel', () => {
  test('takes its endpoints in turn, those of this node first', async (t) => {
    const fixture = new Fixture(t);
    await fixture.add('a', HERE, 'round-robin');
    await fixture.add('far', THERE, 'round-robin');
    const b = await fixture.add('b', HERE, 'round-robin');
    fixture.place(b).load = 1000;
    await fixture.add('c', HERE, 'round-robin');
    assert.equal(sequence(fixture, 7), 'a b c a b c a');
  });

  test('leaves out what is unhealthy or does not answer, and goes elsewhere when nothing here is good', async (t) => {
    const fixture = new Fixture(t);
    const [a, b, c] = [
      await fixture.add('a', HERE, 'round-robin'),
      await fixture.add('b', HERE, 'round-robin'),
      await fixture.add('c', HERE, 'round-robin'),
    ];
    await fixture.add('far', THERE, 'round-robin');
    await fixture.add('farther', THERE, 'round-robin');
    await fixture.report(b, 'round-robin', false);
    assert.equal(sequence(fixture, 4), 'a c a c');
    fixture.place(a).available = false;
    assert.equal(sequence(fixture, 2), 'c c');
    fixture.place(c).available = false;
    assert.equal(sequence(fixture, 4), 'far farther far farther');
    fixture.link.available = false;
    assert.equal(sequence(fixture, 3), 'a b c');
  });

  test('keeps a turn of its own for each tunnel', async (t) => {
    const fixture = new Fixture(t);
    for (const agent of ['a', 'b']) {
      const session = await fixture.add(agent, HERE, 'round-robin');
      const other = { name: 'other', localAddr: '', healthy: true, policy: { balance: 'round-robin' } } as const;
      await fixture.registry.register(session, other, 100);
    }
    const seen: unknown[] = [];
    for (let i = 0; i < 4; i += 1) {
      const other = fixture.router.route('other');
      assert.ok(other);
      seen.push(fixture.choose()?.endpoint.agentId, fixture.router.choose(other, [])?.endpoint.agentId);
    }
    assert.equal(seen.join(' '), 'a a b b a a b b');
  });
});

describe('a sticky tunnel', () => {
  test('keeps a visitor with the agent of the first request, wherever that is, and sets its cookie once', async (t) => {
    const fixture = new Fixture(t);
    await fixture.add('far', THERE, 'sticky');
    const first = fixture.visit();
    assert.deepEqual([first.agent, first.isRelayed], ['far', true]);
    const near = await fixture.add('near', HERE, 'sticky');
    fixture.place(near).load = 0;
    fixture.link.load = 1000;
    for (let i = 0; i < 20; i += 1) {
      assert.deepEqual(fixture.visit(first.set), { agent: 'far', set: undefined, isRelayed: true });
    }
    assert.equal(fixture.visit().agent, 'near');
  });

  test('gives a visitor whose agent is gone, unhealthy or silent another one and a new cookie', async (t) => {
    const fixture = new Fixture(t);
    const a = await fixture.add('a', HERE, 'sticky');
    const { set } = fixture.visit();
    const b = await fixture.add('b', HERE, 'sticky');
    assert.equal(fixture.visit(set).agent, 'a');
    await fixture.report(a, 'sticky', false);
    const moved = fixture.visit(set);
    assert.equal(moved.agent, 'b');
    assert.notEqual(moved.set, undefined);
    assert.deepEqual(fixture.visit(moved.set), { agent: 'b', set: undefined, isRelayed: false });
    await fixture.report(a, 'sticky', true);
    assert.equal(fixture.visit(moved.set).agent, 'b');
    fixture.place(b).available = false;
    assert.equal(fixture.visit(moved.set).agent, 'a');
    await fixture.registry.closeSession(a);
    assert.equal(fixture.visit(set).agent, 'b');
  });

  test('keeps a visitor with an agent that is unhealthy when no other is better', async (t) => {
    const fixture = new Fixture(t);
    const a = await fixture.add('a', HERE, 'sticky');
    const { set } = fixture.visit();
    const b = await fixture.add('b', HERE, 'sticky');
    await fixture.report(a, 'sticky', false);
    await fixture.report(b, 'sticky', false);
    for (let i = 0; i < 10; i += 1) assert.equal(fixture.visit(set).agent, 'a');
  });

  test('counts the sessions of one agent process as one, and takes the one on this node', async (t) => {
    const fixture = new Fixture(t);
    await fixture.add('a', THERE, 'sticky', 0);
    const { set } = fixture.visit();
    await fixture.add('b', HERE, 'sticky');
    await fixture.add('a', HERE, 'sticky', 1);
    for (let i = 0; i < 10; i += 1) {
      assert.deepEqual(fixture.visit(set), { agent: 'a', set: undefined, isRelayed: false });
    }
  });

  test('reads the cookies of any node with the same secret, and of no other', async (t) => {
    const [one, two, foreign] = [new Fixture(t), new Fixture(t), new Fixture(t, 'another secret')];
    for (const fixture of [one, two, foreign]) {
      await fixture.add('a', HERE, 'sticky');
      await fixture.add('b', HERE, 'sticky');
    }
    const { agent, set } = one.visit();
    for (let i = 0; i < 10; i += 1) assert.deepEqual(two.visit(set), { agent, set: undefined, isRelayed: false });
    assert.notEqual(foreign.visit(set).set, undefined);
  });

  test('tells a visitor nothing: values of fixed length that differ from tunnel to tunnel', async (t) => {
    const fixture = new Fixture(t);
    const session = await fixture.add('a', HERE, 'sticky');
    const { set } = fixture.visit();
    assert.match(set ?? '', /^culvert-affinity=[\w-]{22}$/);
    const other = { name: 'other', localAddr: '', healthy: true, policy: { balance: 'sticky' } } as const;
    const route = await fixture.registry.register(session, other, 100);
    const visit = fixture.router.visit(route, []);
    const choice = fixture.router.choose(route, [], visit);
    assert.ok(visit && choice);
    const cookie = fixture.router.cookie(route, choice, visit, true);
    assert.notEqual(cookie?.split(';')[0], set);
    assert.match(cookie ?? '', /^[^;]+; Path=\/; HttpOnly; SameSite=Lax; Secure$/);
  });

  test('takes what another node sends here to the agent that is meant, or to none', async (t) => {
    const fixture = new Fixture(t);
    const meant = await fixture.add('a', HERE, 'sticky');
    await fixture.add('b', HERE, 'sticky');
    assert.equal(fixture.router.chooseLocal('api', meant), fixture.place(meant));
    const gone = { id: meant.id, epoch: meant.epoch - 1 };
    assert.equal(fixture.router.chooseLocal('api', gone), fixture.place(meant));
    await fixture.registry.closeSession(meant);
    assert.equal(fixture.router.chooseLocal('api', gone), undefined);
  });
});
