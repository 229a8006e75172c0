import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { describe, type TestContext, test } from 'node:test';
import type { Principal } from '../../../../shared/control/principal.ts';
import { CulvertError } from '../../../../shared/errors/codes.ts';
import { createMemoryRegistry } from '../../../../shared/registry/memory/memory-registry.ts';
import type { NodeId } from '../../../../shared/registry/registry.ts';
import { until } from '../../../../shared/testkit/eventually.ts';
import { ClusterView } from '../cluster-view.ts';
import { EventHub } from './event-hub.ts';

const NODE = 'one' as NodeId;
const ALL: Principal = { name: 'all', role: 'viewer', accountId: undefined, expiresAt: Number.POSITIVE_INFINITY };

function setUp(t: TestContext) {
  const registry = createMemoryRegistry();
  const calls = { nodeId: NODE, call: () => Promise.reject(new CulvertError('timeout')) };
  const view = new ClusterView(registry, calls);
  const hub = new EventHub({ registry, calls, view, publicUrl: (name) => `http://${name}.localhost` });
  t.after(() => hub.close());
  const claim = async (account: string, name: string) => {
    const session = { agentId: `agent-${account}`, accountId: account, instanceId: name, slot: 0, nodeId: NODE };
    const record = await registry.openSession({ ...session, maxSessionsPerAccount: 1e6 });
    await registry.register(record, { name, localAddr: '', healthy: true }, 1e6);
    return record;
  };
  return { registry, hub, claim };
}

/** A reader that reads all there is. */
class Reader {
  readonly out = new PassThrough();
  text = '';

  constructor(hub: EventHub, principal: Principal = ALL, lastId?: string) {
    this.out.on('data', (chunk: Buffer) => {
      this.text += chunk.toString();
    });
    hub.add(principal, this.out, lastId);
  }

  get types(): string[] {
    return [...this.text.matchAll(/^event: (\w+)$/gm)].map(([, type = '']) => type);
  }

  get lastId(): string {
    return [...this.text.matchAll(/^id: (\S+)$/gm)].at(-1)?.[1] ?? '';
  }
}

describe('the stream of events', () => {
  test('begins with a snapshot and tells of sessions and tunnels that come and go', async (t) => {
    const { registry, hub, claim } = setUp(t);
    const reader = new Reader(hub);
    await until('the snapshot', () => reader.types.includes('snapshot'));
    assert.equal(reader.types[0], 'hello');
    const session = await claim('acme', 'api');
    await until('both are told', () => reader.types.includes('agent') && reader.types.includes('tunnel'));
    assert.match(reader.text, /"name":"api","accountId":"acme","tunnel":\{/);
    await registry.closeSession(session);
    await until('both are gone', () => /"isOpen":false/.test(reader.text) && /"tunnel":null/.test(reader.text));
    await until('figures come', () => reader.types.includes('figures'));
  });

  test('holds nothing of another account', async (t) => {
    const { registry, hub, claim } = setUp(t);
    const reader = new Reader(hub, { ...ALL, accountId: 'acme' });
    const all = new Reader(hub);
    const theirs = await claim('other', 'secret-name');
    await claim('acme', 'api');
    await until('all is told', () => /secret-name/.test(all.text) && /"name":"api"/.test(reader.text));
    await registry.closeSession(theirs);
    await until('its end is told', () => /"tunnel":null/.test(all.text));
    assert.doesNotMatch(reader.text, /other|secret-name/);
    const again = new Reader(hub, { ...ALL, accountId: 'acme' }, `${all.lastId.split('.')[0]}.0`);
    await until('what was missed is told', () => /"name":"api"/.test(again.text));
    assert.doesNotMatch(again.text, /other|secret-name/);
  });

  test('goes on behind the last event, or begins anew when that is not known', async (t) => {
    const { hub, claim } = setUp(t);
    const first = new Reader(hub);
    await claim('acme', 'one');
    await until('it is told', () => /"name":"one"/.test(first.text));
    first.out.destroy();
    await claim('acme', 'two');
    const second = new Reader(hub, ALL, first.lastId);
    await until('the second is told', () => /"name":"two"/.test(second.text));
    assert.match(second.text, /"resumed":true/);
    assert.doesNotMatch(second.text, /"name":"one"|event: snapshot/);
    for (const unknown of ['x', 'other.1', `${first.lastId}9999`]) {
      const reader = new Reader(hub, ALL, unknown);
      await until('a snapshot', () => reader.types.includes('snapshot'));
      assert.match(reader.text, /"resumed":false/);
    }
  });

  test('tells very many changes as one', async (t) => {
    const { hub, claim } = setUp(t);
    const reader = new Reader(hub);
    for (let i = 0; i < 1000; i += 1) await claim('acme', `t-${i}`);
    await until('it is told', () => reader.types.includes('changed'));
    assert.ok(reader.types.length < 500, `${reader.types.length} events`);
  });

  test('drops who does not read, with a last event that says so, and serves the others', async (t) => {
    const { hub, claim } = setUp(t);
    const stuck = new PassThrough({ highWaterMark: 1 });
    hub.add(ALL, stuck, undefined);
    const reader = new Reader(hub);
    const long = 'x'.repeat(20_000);
    for (let i = 0; i < 80; i += 1) await claim(`${i}${long}`, `t-${i}`);
    await until('the others hear it', () => /"name":"t-79"/.test(reader.text));
    let text = '';
    stuck.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await until('it is over', () => stuck.readableEnded);
    assert.match(text, /event: dropped\ndata: \{"at":\d+,"code":"overloaded"[^\n]+\n\n$/);
    assert.doesNotMatch(reader.text, /event: dropped/);
  });

  test('ends with the credentials and with the node, and has a limit of readers', async (t) => {
    const { hub } = setUp(t);
    const brief = new Reader(hub, { ...ALL, expiresAt: Date.now() + 50 });
    await until('it is over', () => /"code":"invalid_token"/.test(brief.text));
    await until('its place is free', () => brief.out.destroyed);
    const readers = Array.from({ length: 100 }, () => new Reader(hub));
    assert.throws(() => new Reader(hub), { code: 'overloaded' });
    hub.close();
    await until('all are told', () => readers.every(({ text }) => /"code":"node_draining"/.test(text)));
    assert.throws(() => new Reader(hub), { code: 'node_draining' });
  });
});
