import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { CulvertError } from '../../errors/codes.ts';
import { createLogger } from '../../observability/logger.ts';
import { until } from '../../testkit/eventually.ts';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { claim, epochs, PLENTY, tunnel, withCode } from '../contract/support.contract.ts';
import type { NodeId, RegistryEvent, SessionRecord } from '../registry.ts';
import { createRedisRegistry, type RedisRegistry } from './redis-registry.ts';
import { emptyButOpen, LEASE, openRegistry, usable } from './support.contract.ts';

const A = 'node-a' as NodeId;
const B = 'node-b' as NodeId;
const POLICY = { balance: 'sticky' } as const;
const NAMES = Array.from({ length: 50 }, (_, i) => `name-${i}`);

/** Invariants 2 and 5 of DESIGN.md section 4: what happens when Redis, its data or a node is lost. */
describe('the redis registry', () => {
  let server: RedisServer;
  let a: RedisRegistry;
  let b: RedisRegistry;
  before(async () => {
    // On disk with every write, so that only a test that wants to loses data by a restart.
    server = await startRedis(['--appendonly', 'yes', '--appendfsync', 'always']);
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

  /** A session on node A with all names. */
  async function serve(): Promise<SessionRecord> {
    const session = await a.openSession(claim());
    await Promise.all(NAMES.map((name) => a.register(session, tunnel(name, { policy: POLICY }), PLENTY)));
    await b.caughtUp();
    return session;
  }

  function served(registry: RedisRegistry, session: SessionRecord): boolean {
    return NAMES.every((name) => epochs(registry.lookup(name)).includes(session.epoch));
  }

  /** Claims every name for another account on node B until `stop` resolves. @returns the names that it got */
  async function steal(stop: Promise<unknown>): Promise<string[]> {
    const got: string[] = [];
    let going = true;
    let thief: SessionRecord | undefined;
    void stop.finally(() => {
      going = false;
    });
    while (going) {
      thief ??= await b.openSession(claim({ accountId: 'evil', agentId: 'agent-2', nodeId: B })).catch(() => undefined);
      const session = thief;
      if (session !== undefined) {
        const results = await Promise.allSettled(NAMES.map((name) => b.register(session, tunnel(name), PLENTY)));
        results.forEach((result, i) => {
          if (result.status === 'fulfilled') got.push(NAMES[i] ?? '');
        });
      }
      await wait(5);
    }
    return got;
  }

  test('that was never read does not take a name for absent', async (t) => {
    const session = await serve();
    server.pause();
    const late = createRedisRegistry({
      redis: { kind: 'single', url: server.url },
      nodeId: 'node-c' as NodeId,
      logger: createLogger({ level: 'silent', name: 'test' }),
      lease: LEASE,
      commandTimeout: 500,
    });
    t.after(() => late.close());
    assert.equal(late.isLoaded, false);
    await assert.rejects(late.find('name-1'), withCode('registry_unavailable'));
    server.resume();
    await until('it is read', () => late.isLoaded);
    assert.ok(served(late, session));
    assert.equal(await late.find('absent'), undefined);
  });

  test('lets a thousand races for one name be won by exactly one account', async () => {
    const left = await a.openSession(claim());
    const right = await b.openSession(claim({ accountId: 'other', agentId: 'agent-2', nodeId: B }));
    const won = { acme: 0, other: 0 };
    for (let round = 0; round < 1000; round += 1) {
      const pair = [a.register(left, tunnel('hot'), PLENTY), b.register(right, tunnel('hot'), PLENTY)];
      const results = await Promise.allSettled(pair);
      assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
      for (const result of results) if (result.status === 'rejected') withCode('tunnel_taken')(result.reason);
      const acmeWon = results[0]?.status === 'fulfilled';
      won[acmeWon ? 'acme' : 'other'] += 1;
      if (round % 20 === 0) assert.deepEqual(await b.byAccount(acmeWon ? 'other' : 'acme'), []);
      await (acmeWon ? a.unregister(left, 'hot') : b.unregister(right, 'hot'));
    }
    assert.ok(won.acme > 0 && won.other > 0, JSON.stringify(won));
  });

  test('answers lookups and refuses claims at once while redis is frozen, and goes on after it by itself', async () => {
    const session = await serve();
    server.pause();
    const started = performance.now();
    await assert.rejects(a.openSession(claim({ slot: 1 })), withCode('registry_unavailable'));
    await assert.rejects(a.register(session, tunnel('late'), PLENTY), withCode('registry_unavailable'));
    assert.ok(performance.now() - started < 2500);
    await until('node B knows', () => b.unavailable()?.code === 'registry_unavailable');
    // Longer than the lease of everybody: nobody is dead for it, neither now nor when Redis is back.
    await wait(1.5 * LEASE);
    assert.ok(served(a, session) && served(b, session));
    const lost: RegistryEvent[] = [];
    b.subscribe((event) => {
      if (event.type === 'route' && NAMES.includes(event.name) && (event.route?.endpoints.length ?? 0) === 0)
        lost.push(event);
    });
    server.resume();
    await usable(a);
    await usable(b);
    await a.register(session, tunnel('late'), PLENTY);
    await wait(1.5 * LEASE);
    assert.deepEqual(lost, []);
    assert.ok(served(a, session) && served(b, session));
    await until('the claim without an answer left nothing', async () => (await b.byAgent('agent-1')).length === 1);
  });

  test('answers lookups while redis is down, and takes claims again when it was restarted with its data', async () => {
    const session = await serve();
    await server.kill();
    await assert.rejects(a.openSession(claim({ slot: 1 })), withCode('registry_unavailable'));
    await assert.rejects(b.byAccount('acme'), withCode('registry_unavailable'));
    await wait(1.2 * LEASE);
    assert.ok(served(a, session) && served(b, session));
    await server.restart();
    await usable(a);
    const next = await a.openSession(claim({ slot: 1 }));
    assert.ok(next.epoch > session.epoch);
    await wait(1.5 * LEASE);
    await b.caughtUp();
    assert.ok(served(a, session) && served(b, session));
  });

  test('publishes all again after its data was wiped, and nobody takes a name meanwhile', async () => {
    const session = await serve();
    const kept: boolean[] = [];
    const watch = setInterval(() => kept.push(served(a, session) && served(b, session)), 5);
    // Long enough for the claims to open again, with everything published.
    const stolen = steal(wait(3 * LEASE));
    await server.client.flushall();
    assert.deepEqual(await stolen, []);
    clearInterval(watch);
    assert.ok(kept.length > 50 && !kept.includes(false), 'a lookup failed meanwhile');
    await usable(b);
    await b.caughtUp();
    assert.ok(served(a, session) && served(b, session));
    assert.deepEqual((await b.byAccount('acme')).length, NAMES.length);
    assert.deepEqual(await b.byAgent('agent-1'), [session]);
    assert.ok((await b.byAccount('acme')).every(({ policy }) => policy?.balance === 'sticky'));
    await assert.rejects(a.register(session, tunnel('more'), NAMES.length), withCode('quota_exceeded'));
  });

  test('gives higher epochs than before the data was wiped, also when they had run ahead of the clock', async () => {
    await a.openSession(claim());
    const ahead = Date.now() + 100_000;
    for (const key of await server.client.keys('*:meta')) await server.client.hset(key, 'epoch', ahead);
    const session = await a.openSession(claim());
    assert.ok(session.epoch > ahead);
    await server.client.flushall();
    await until('the loss is seen', () => b.unavailable() !== undefined);
    await usable(b);
    const next = await b.openSession(claim({ nodeId: B }));
    assert.ok(next.epoch > session.epoch, `${next.epoch} after ${session.epoch}`);
  });

  test('takes out what a restart from an old snapshot brought back', async () => {
    const gone = await a.openSession(claim({ slot: 9 }));
    await a.register(gone, tunnel('ghost'), PLENTY);
    const snapshot = new Map<string, Record<string, string>>();
    for (const key of await server.client.keys('culvert:*')) {
      if ((await server.client.type(key)) === 'hash') snapshot.set(key, await server.client.hgetall(key));
    }
    await a.closeSession(gone);
    const session = await serve();
    await server.client.flushall();
    for (const [key, fields] of snapshot) await server.client.hset(key, fields);
    for (const key of await server.client.keys('*:meta')) await server.client.hset(key, 'run', 'the server before');
    await until('the loss is seen', () => b.unavailable() !== undefined);
    await usable(b);
    await until('the ghost is gone', async () => {
      await b.caughtUp();
      return b.lookup('ghost') === undefined && (await b.byAgent('agent-1')).length === 1;
    });
    assert.ok(served(a, session) && served(b, session));
  });

  test('stops routing to a crashed node within its lease, and frees its names after it', async () => {
    const session = await serve();
    const stays = await b.openSession(claim({ slot: 1, nodeId: B }));
    await b.register(stays, tunnel('name-0'), PLENTY);
    await wait(LEASE); // Leases count only after one lease without a gap.
    await a.close();
    const took = await until('its endpoints are gone', () => epochs(b.lookup('name-1')).length === 0, 3 * LEASE);
    assert.ok(took < LEASE + 150, `${took} ms`);
    assert.deepEqual(epochs(b.lookup('name-0')), [stays.epoch]);
    await until('its names are free', () => b.lookup('name-1') === undefined, 3 * LEASE);
    const heir = await b.openSession(claim({ accountId: 'other', agentId: 'agent-2', nodeId: B }));
    await b.register(heir, tunnel('name-1'), 1);
    await until('its session is gone', async () => (await b.byAgent('agent-1')).length === 1, 3 * LEASE);
    assert.equal((await b.byAccount('acme')).length, 1);
    assert.notEqual(session.epoch, stays.epoch);
  });

  test('brings back a node that was taken for dead, with its sessions, and tells it of those that moved on', async () => {
    const session = await a.openSession(claim());
    const moved = await a.openSession(claim({ slot: 1 }));
    await a.register(session, tunnel('kept'), PLENTY);
    await wait(LEASE);
    const replaced: RegistryEvent[] = [];
    a.subscribe((event) => {
      if (event.type === 'session-replaced') replaced.push(event);
    });
    // As if node A had been cut off from Redis, which lives: its incarnation is declared dead.
    const lease = await server.client.hget('culvert:v1:{nodes}:leases', A);
    const { i } = JSON.parse(lease ?? '{}') as { i: number };
    await server.client.hset('culvert:v1:{nodes}:dead', A, `${i}:${Date.now()}`);
    const young = await b.openSession(claim({ slot: 1, nodeId: B }));
    await until('node A is back', async () => {
      const now = JSON.parse((await server.client.hget('culvert:v1:{nodes}:leases', A)) ?? '{}') as { i?: number };
      return (now.i ?? 0) > i;
    });
    await until('its endpoint is served', async () => {
      await b.caughtUp();
      const stored = await server.client.hvals(`culvert:v1:{${await shardWith('kept')}}:routes`);
      return stored.some((json) => !json.includes(`"i":${i},`) && json.includes(session.id.split('/')[0] ?? ''));
    });
    await wait(LEASE);
    assert.deepEqual(epochs(b.lookup('kept')), [session.epoch]);
    assert.deepEqual(replaced, [
      { type: 'session-replaced', session: { id: moved.id, epoch: moved.epoch }, nodeId: A },
    ]);
    assert.ok((await b.byAgent('agent-1')).some(({ epoch }) => epoch === young.epoch));
  });

  test('removes nothing of the newer session when the close of the old one comes late', async () => {
    const old = await a.openSession(claim());
    await a.register(old, tunnel('api'), PLENTY);
    server.pause();
    const late = a.closeSession(old).catch((error: unknown) => error);
    const code = await late;
    assert.ok(code instanceof CulvertError && code.code === 'registry_unavailable');
    // A renewal that is still under way would fail after node B was seen to take claims.
    await until('node B knows', () => b.unavailable() !== undefined);
    // What was sent before the freeze is done after it, in whatever order the connections are served.
    server.resume();
    await usable(b);
    const young = await b.openSession(claim({ nodeId: B }));
    await b.register(young, tunnel('api'), PLENTY);
    await a.closeSession(old);
    await wait(LEASE);
    await a.caughtUp();
    assert.deepEqual(epochs(a.lookup('api')), [young.epoch]);
    assert.deepEqual(await a.byAgent('agent-1'), [young]);
  });

  async function shardWith(name: string): Promise<number> {
    const keys = await server.client.keys('*:routes');
    for (const key of keys) if (await server.client.hexists(key, name)) return Number(/\{(\d+)\}/.exec(key)?.[1]);
    throw new Error(`nobody has ${name}`);
  }
});
