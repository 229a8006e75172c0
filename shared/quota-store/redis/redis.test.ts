import assert from 'node:assert/strict';
import { after, before, describe, type TestContext, test } from 'node:test';
import { createLogger } from '../../observability/logger.ts';
import type { RedisAddress } from '../../redis/connection.ts';
import { until } from '../../testkit/eventually.ts';
import { type RedisGroup, type RedisServer, startRedis, startRedisCluster } from '../../testkit/redis-server.ts';
import { quotaStoreContract } from '../quota-store.contract.ts';
import { monthOf } from '../quota-store.ts';
import { RedisQuotaStore } from './redis-quota-store.ts';

const logger = createLogger({ name: 'test', level: 'silent' });
const MONTH = monthOf(0);

async function open(redis: RedisAddress): Promise<RedisQuotaStore> {
  const store = new RedisQuotaStore({ redis, logger });
  await until('the store answers', () =>
    store.usage('nobody', MONTH).then(
      () => true,
      () => false,
    ),
  );
  return store;
}

async function fixture(redis: RedisAddress, servers: readonly RedisServer[]) {
  const [a, b] = await Promise.all([open(redis), open(redis)]);
  await Promise.all(servers.map(({ client }) => client.flushall()));
  return {
    a,
    b,
    size: async () => (await Promise.all(servers.map(({ client }) => client.dbsize()))).reduce((sum, n) => sum + n, 0),
    close: async () => {
      a.close();
      b.close();
    },
  };
}

describe('one redis', () => {
  let server: RedisServer;
  before(async () => {
    server = await startRedis();
  });
  after(() => server.close());

  async function emptied(t: TestContext): Promise<RedisQuotaStore> {
    const store = await open({ kind: 'single', url: server.url });
    t.after(() => store.close());
    await server.client.flushall();
    return store;
  }

  quotaStoreContract('redis', () => fixture({ kind: 'single', url: server.url }, [server]));

  test('what nobody asks for any more goes from redis by itself', async (t) => {
    const store = await emptied(t);
    await store.draw('acme', [{ bucket: 'requests', rate: 1000, burst: 100, used: 0, want: 50, need: 50 }]);
    await store.hold('acme', { permit: 'agent', holder: 'one', limit: 5, inUse: 1, want: 2, ttl: 50 });
    assert.equal(await server.client.dbsize(), 2);
    await until('both keys are gone', async () => (await server.client.dbsize()) === 0);
    const addition = { month: MONTH, source: 'one', sequence: 1, delta: { requests: 1, bytesIn: 0, bytesOut: 0 } };
    await store.addUsage('acme', { ...addition, known: addition.delta });
    const left = await server.client.pttl(`culvert:v1:quota:{acme}:usage:${MONTH}`);
    assert.ok(left > 400 * 86_400_000, `${left} ms`);
  });

  test('forgets sources that are silent for an hour when a new one comes', async (t) => {
    const store = await emptied(t);
    const key = `culvert:v1:quota:{acme}:usage:${MONTH}`;
    await server.client.hset(key, 's:old', '9:1000', 's:young', `9:${Date.now()}`);
    const nothing = { requests: 0, bytesIn: 0, bytesOut: 0 };
    await store.addUsage('acme', { month: MONTH, source: 'new', sequence: 1, delta: nothing, known: nothing });
    const fields = Object.keys(await server.client.hgetall(key)).filter((field) => field.startsWith('s:'));
    assert.deepEqual(fields.sort(), ['s:new', 's:young']);
  });

  test('fails in time while redis does not answer, and goes on when it does', async (t) => {
    const store = await emptied(t);
    const ask = (): Promise<unknown> =>
      store.draw('acme', [{ bucket: 'requests', rate: 1, burst: 1, used: 0, want: 0, need: 0 }]);
    server.pause();
    const started = performance.now();
    await assert.rejects(ask(), { code: 'registry_unavailable' });
    assert.ok(performance.now() - started < 3000);
    server.resume();
    await until('it answers again', () =>
      ask().then(
        () => true,
        () => false,
      ),
    );
  });
});

describe('a redis cluster', () => {
  let group: RedisGroup;
  before(async () => {
    group = await startRedisCluster();
  });
  after(() => group.close());

  quotaStoreContract('redis cluster', () =>
    fixture({ kind: 'cluster', urls: group.servers.map(({ url }) => url) }, group.servers),
  );
});
