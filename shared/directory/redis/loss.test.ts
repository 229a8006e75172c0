import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { createLogger } from '../../observability/logger.ts';
import { until } from '../../testkit/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../../testkit/fault-proxy.ts';
import { type RedisServer, type SentinelGroup, startRedis, startRedisSentinel } from '../../testkit/redis-server.ts';
import { judge } from '../access.ts';
import { account, keySpec, withCode } from '../contract/support.contract.ts';
import type { Directory } from '../directory.ts';
import { createKey, revoke } from '../operations.ts';
import { RECORDS } from './keys.ts';
import { createRedisDirectory, type RedisDirectory } from './redis-directory.ts';
import { emptyButOpen, INTERVAL, openDirectory, usable, WINDOW } from './support.contract.ts';

const BEARER = { accountId: 'evil', agentId: 'laptop', issuedAt: 1 };

function letsIn(directory: Directory): boolean {
  return judge(directory, BEARER, { requireAccounts: false }).refusal === undefined;
}

function ids(directory: Directory): string[] {
  return directory.list('account').map(({ id }) => id);
}

describe('the directory', () => {
  let server: RedisServer;
  const open: RedisDirectory[] = [];
  const proxies: FaultProxy[] = [];
  before(async () => {
    server = await startRedis(['--appendonly', 'no']);
  });
  after(() => server.close());
  beforeEach(() => emptyButOpen([server.client]));
  afterEach(async () => {
    await Promise.all(open.splice(0).map((directory) => directory.close()));
    await Promise.all(proxies.splice(0).map((proxy) => proxy.close()));
  });

  async function node(url = server.url, lines?: string[]): Promise<RedisDirectory> {
    const logger = createLogger({
      name: 'test',
      level: lines === undefined ? 'silent' : 'warn',
      destination: { write: (line: string) => void lines?.push(line) },
    });
    const directory = await openDirectory({ kind: 'single', url }, { logger });
    open.push(directory);
    return directory;
  }

  /** A node whose way to Redis can be cut. */
  async function nodeBehindProxy(): Promise<[RedisDirectory, FaultProxy]> {
    const proxy = await startFaultProxy(server.port);
    proxies.push(proxy);
    return [await node(`redis://127.0.0.1:${proxy.port}`), proxy];
  }

  async function fill(directory: Directory): Promise<void> {
    await directory.put('account', 'acme', account(), 0);
    await directory.put('account', 'evil', account({ disabled: true }), 0);
    await revoke(directory, { target: { type: 'token', tokenId: 't1' }, by: 'root' });
    await createKey(directory, keySpec());
  }

  test('is refilled by the nodes when Redis is emptied, reports it, and lets nobody in meanwhile', async () => {
    const lines: string[] = [];
    const [a, b] = await Promise.all([node(server.url, lines), node()]);
    await fill(a);
    await b.caughtUp();
    const fresh = createRedisDirectory({
      redis: { kind: 'single', url: server.url },
      logger: createLogger({ name: 'test', level: 'silent' }),
      interval: 20,
      window: WINDOW,
    });
    open.push(fresh);
    await usable(fresh);
    await server.client.flushall();
    const late = createRedisDirectory({
      redis: { kind: 'single', url: server.url },
      logger: createLogger({ name: 'test', level: 'silent' }),
      interval: 20,
      window: WINDOW,
    });
    open.push(late);
    let seenRestoring = false;
    await until('all is back', async () => {
      for (const each of [a, b, fresh, late]) {
        assert.equal(letsIn(each), false);
        seenRestoring ||= each.status().state === 'restoring';
      }
      return [a, b, fresh, late].every(
        (each) => each.unavailable() === undefined && each.count('account') === 2 && each.count('key') === 1,
      );
    });
    assert.ok(seenRestoring);
    for (const each of [a, b, late]) {
      assert.deepEqual(ids(each), ['acme', 'evil']);
      assert.equal(each.get('revocation', 'token:t1')?.createdBy, 'root');
    }
    assert.equal(a.status().losses, 1);
    assert.equal(late.status().losses, 0);
    const loss = a.status().lastLoss;
    assert.deepEqual([loss?.found, loss !== undefined && loss.held > 0], [0, true]);
    const error = lines.map((line) => JSON.parse(line)).find(({ level }) => level === 'error');
    assert.match(error?.msg, /missing or old/);
    // It takes changes again, with versions above the old ones.
    const there = a.get('account', 'acme');
    const changed = await b.put('account', 'acme', account({ name: 'new' }), there?.version ?? 0);
    assert.ok(changed.version > (there?.version ?? 0));
  });

  test('refuses changes while it is restored', async () => {
    const a = await node();
    await fill(a);
    const { version } = a.get('account', 'evil') ?? { version: 0 };
    await server.client.flushall();
    await assert.rejects(a.put('account', 'evil', account(), version), withCode('registry_unavailable'));
    await usable(a);
    await a.put('account', 'evil', account(), version);
  });

  test('takes out of an old snapshot what was removed since, and brings back what it lacks', async () => {
    const [a, b] = await Promise.all([node(), node()]);
    await a.put('account', 'old', account(), 0);
    const evil = await a.put('account', 'evil', account(), 0);
    await server.client.save();
    await a.remove('account', 'old', a.get('account', 'old')?.version ?? 0);
    await a.put('account', 'evil', account({ disabled: true }), evil.version);
    await a.put('account', 'new', account(), 0);
    await b.caughtUp();
    await server.kill();
    await server.restart();
    await until('both are in step again', async () => {
      for (const each of [a, b]) {
        assert.equal(letsIn(each), false);
        assert.deepEqual(ids(each), ['evil', 'new']);
      }
      return a.unavailable() === undefined && b.unavailable() === undefined;
    });
    const stored = await server.client.hgetall(RECORDS.account);
    assert.deepEqual(Object.keys(stored).sort(), ['evil', 'new']);
    const fresh = await node();
    assert.deepEqual(ids(fresh), ['evil', 'new']);
    assert.equal(letsIn(fresh), false);
    assert.equal(fresh.status().losses, 0);
  });

  for (const order of ['first', 'last']) {
    test(`is not restored from a node that knows less than another one, when it comes ${order}`, async () => {
      const b = await node();
      const [a, proxy] = await nodeBehindProxy();
      await a.put('account', 'old', account(), 0);
      await b.caughtUp();
      proxy.refuse();
      await until('node A is cut off', () => a.status().state === 'disconnected');
      // Node B goes on alone, and Redis loses everything while A is away.
      await b.remove('account', 'old', b.get('account', 'old')?.version ?? 0);
      await b.put('account', 'evil', account({ disabled: true }), 0);
      assert.equal(letsIn(b), false);
      await server.client.flushall();
      if (order === 'last') await until('node B has put its records back', () => b.status().lastLoss?.restored === 1);
      proxy.heal();
      await Promise.all([usable(a), usable(b)]);
      await a.caughtUp();
      assert.deepEqual([ids(a), ids(b)], [['evil'], ['evil']]);
    });
  }

  test('gets what only a node knows that comes back after the others have gone on, unless it changed since', async () => {
    const b = await node();
    const [a, proxy] = await nodeBehindProxy();
    const both = await a.put('account', 'both', account(), 0);
    await a.put('account', 'gone', account(), 0);
    await b.caughtUp();
    await server.client.save();
    await a.put('account', 'evil', account({ disabled: true }), 0);
    const changed = await a.put('account', 'both', account({ name: 'by a' }), both.version);
    await b.close();
    proxy.refuse();
    await until('node A is cut off', () => a.status().state === 'disconnected');
    await server.kill();
    await server.restart();
    // A node that started after it all: it has what the snapshot has, and goes on from there.
    const c = await node();
    assert.deepEqual(ids(c), ['both', 'gone']);
    await c.remove('account', 'gone', c.get('account', 'gone')?.version ?? 0);
    await c.put('account', 'both', account({ name: 'by c' }), c.get('account', 'both')?.version ?? 0);
    proxy.heal();
    await usable(a);
    await Promise.all([a.caughtUp(), c.caughtUp()]);
    for (const each of [a, c]) {
      assert.deepEqual(ids(each), ['both', 'evil']);
      assert.equal(each.get('account', 'both')?.name, 'by c');
      assert.equal(letsIn(each), false);
    }
    assert.ok((c.get('account', 'both')?.version ?? 0) > changed.version);
  });

  test('notices records that were evicted or deleted by hand', async () => {
    const a = await node();
    await fill(a);
    await server.client.hdel(RECORDS.account, 'evil');
    await until('the loss is seen', () => a.status().losses === 1);
    assert.equal(letsIn(a), false);
    await usable(a);
    assert.equal(await server.client.hexists(RECORDS.account, 'evil'), 1);
    await server.client.del(RECORDS.revocation);
    await until('the second loss is seen', () => a.status().losses === 2);
    await usable(a);
    assert.equal(await server.client.hexists(RECORDS.revocation, 'token:t1'), 1);
  });

  test('goes on checking while Redis is away, refuses changes, and goes on by itself', async () => {
    const a = await node();
    await fill(a);
    const states: string[] = [];
    a.subscribe((event) => {
      if (event.type === 'status') states.push(event.status.state);
    });
    const before = a.status().inStepAt;
    await server.client.save();
    await server.kill();
    await until('it is noticed', () => a.status().state === 'disconnected');
    const started = performance.now();
    await assert.rejects(a.put('account', 'new', account(), 0), withCode('registry_unavailable'));
    assert.ok(performance.now() - started < 1500);
    assert.equal(letsIn(a), false);
    await server.restart();
    await usable(a);
    await a.put('account', 'new', account(), 0);
    assert.ok(a.status().inStepAt > before);
    assert.equal(a.status().losses, 0);
    assert.deepEqual(states, ['disconnected', 'restoring', 'ready']);
  });

  test('does not hang on a Redis that is frozen', async () => {
    const a = await node();
    await fill(a);
    server.pause();
    const started = performance.now();
    await assert.rejects(a.put('account', 'new', account(), 0), withCode('registry_unavailable'));
    assert.ok(performance.now() - started < 2000);
    server.resume();
    await usable(a);
  });

  test('a node without records lets nobody in until it has read them', async () => {
    const proxy = await startFaultProxy(server.port);
    proxies.push(proxy);
    proxy.refuse();
    const a = await node();
    await fill(a);
    const fresh = createRedisDirectory({
      redis: { kind: 'single', url: `redis://127.0.0.1:${proxy.port}` },
      logger: createLogger({ name: 'test', level: 'silent' }),
      interval: INTERVAL,
      window: WINDOW,
    });
    open.push(fresh);
    await wait(2 * INTERVAL);
    const verdict = judge(fresh, { ...BEARER, accountId: 'acme' }, { requireAccounts: false });
    assert.equal(verdict.refusal?.code, 'registry_unavailable');
    assert.equal(fresh.status().state, 'loading');
    proxy.heal();
    await usable(fresh);
    assert.equal(judge(fresh, { ...BEARER, accountId: 'acme' }, { requireAccounts: true }).refusal, undefined);
    assert.equal(letsIn(fresh), false);
  });

  test('hears of a change within 2 s though the event is lost', async () => {
    const [a, b] = await Promise.all([node(), node()]);
    await a.put('account', 'evil', account(), 0);
    await b.caughtUp();
    for (let round = 0; round < 5; round += 1) {
      const { version = 0, disabled = false } = a.get('account', 'evil') ?? {};
      await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
      const changed = await a.put('account', 'evil', account({ disabled: !disabled }), version);
      const took = await until('the other node knows', () => b.get('account', 'evil')?.version === changed.version);
      assert.ok(took < 2000, `${took} ms`);
    }
  });

  test('a record that cannot be read refuses, and does not stop the others', async () => {
    const a = await node();
    await fill(a);
    await server.client.hset(RECORDS.account, 'acme', '9:9:{"name":');
    await server.client.hset(RECORDS.revocation, 'token:t1', 'nonsense');
    const fresh = await node();
    const asked = { accountId: 'acme', agentId: 'x', issuedAt: 1 };
    assert.equal(judge(fresh, asked, { requireAccounts: false }).refusal?.code, 'access_revoked');
    const other = { accountId: 'other', agentId: 'x', issuedAt: 1 };
    assert.equal(judge(fresh, { ...other, tokenId: 't1' }, { requireAccounts: false }).refusal?.code, 'access_revoked');
    assert.equal(judge(fresh, { ...other, tokenId: 't2' }, { requireAccounts: false }).refusal, undefined);
    assert.deepEqual(ids(fresh), ['evil']);
  });

  test('reads many records in pages while others change them', { timeout: 60_000 }, async () => {
    const a = await node();
    const names = Array.from({ length: 3000 }, (_, i) => `account-${i}`);
    for (let at = 0; at < names.length; at += 100) {
      await Promise.all(names.slice(at, at + 100).map((name) => a.put('account', name, account(), 0)));
    }
    let changing = true;
    const changes = (async () => {
      for (let i = 0; changing; i += 1) {
        const name = names[i % names.length] ?? '';
        if (i % 3 === 0) await a.remove('account', name, a.get('account', name)?.version ?? 0).catch(() => {});
        else await a.put('account', `more-${i}`, account(), 0);
      }
    })();
    const fresh = await node();
    changing = false;
    await changes;
    await Promise.all([fresh.caughtUp(), a.caughtUp()]);
    assert.deepEqual(fresh.list('account'), a.list('account'));
  });
});

describe('a failover to a replica', () => {
  let group: SentinelGroup;
  before(async () => {
    group = await startRedisSentinel();
  });
  after(() => group.close());

  test('loses no record and needs no restart', async (t) => {
    await emptyButOpen([group.master.client]);
    const a = await openDirectory({ kind: 'sentinel', sentinels: [group.sentinel], name: group.name });
    t.after(() => a.close());
    await a.put('account', 'acme', account(), 0);
    // The replica stops hearing of the master: what follows is lost in the failover.
    await group.replica.client.replicaof('127.0.0.1', '1');
    await a.put('account', 'evil', account({ disabled: true }), 0);
    await group.master.kill();
    await until('it is noticed', () => a.unavailable() !== undefined);
    await until(
      'the replica has all',
      async () => {
        assert.equal(letsIn(a), false);
        return a.unavailable() === undefined && (await group.replica.client.hlen(RECORDS.account)) === 2;
      },
      20_000,
    );
    assert.equal(a.status().losses, 1);
    await a.put('account', 'new', account(), 0);
  });
});

describe('a user of Redis with the rights that KEYS.md names', () => {
  test('may do all that the directory does', async (t) => {
    const server = await startRedis();
    t.after(() => server.close());
    await emptyButOpen([server.client]);
    const page = readFileSync(new URL('KEYS.md', import.meta.url), 'utf8');
    const rights = /needs `([^`]+)` on\s+`([^`]+)` and `([^`]+)`/.exec(page)?.slice(1).join(' ').split(/\s+/) ?? [];
    assert.ok(rights.length > 10);
    await server.client.call('ACL', 'SETUSER', 'culvert', 'on', '>secret', 'resetchannels', ...rights);
    const url = server.url.replace('://', '://culvert:secret@');
    const [a, b] = await Promise.all([openDirectory({ kind: 'single', url }), openDirectory({ kind: 'single', url })]);
    t.after(() => Promise.all([a.close(), b.close()]));
    const { version } = await a.put('account', 'acme', account(), 0);
    await b.caughtUp();
    await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await a.put('account', 'acme', account({ name: 'missed' }), version);
    await until('the missed event is read', () => b.get('account', 'acme')?.name === 'missed');
    await a.put('account', 'other', account(), 0);
    await a.remove('account', 'other', a.get('account', 'other')?.version ?? 0);
    await server.client.flushall();
    await until('the loss is seen', () => a.status().losses === 1);
    await usable(a);
    assert.deepEqual(ids(a), ['acme']);
    assert.equal(await server.client.hlen(RECORDS.account), 1);
  });
});
