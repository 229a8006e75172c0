import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { claim, PLENTY, tunnel } from '../contract/support.contract.ts';
import { routesKey, shardOf } from './keys.ts';
import { emptyButOpen, LEASE, openRegistry } from './support.contract.ts';

const MANY = 100_000;

/** Invariants 3 and 4 of DESIGN.md section 4: what tunnels and requests cost Redis while nothing changes. */
describe('what the redis registry asks of redis', () => {
  let server: RedisServer;
  before(async () => {
    server = await startRedis();
  });
  after(() => server.close());

  /** Commands that Redis ran in `ms`, those inside scripts included. */
  async function commands(ms: number): Promise<number> {
    const count = async (): Promise<number> =>
      Number(/total_commands_processed:(\d+)/.exec(await server.client.info('stats'))?.[1]);
    const before = await count();
    await wait(ms);
    return (await count()) - before;
  }

  async function fill(names: number): Promise<void> {
    for (let start = 0; start < names; start += 5000) {
      const pipeline = server.client.pipeline();
      for (let i = start; i < Math.min(names, start + 5000); i += 1) {
        const endpoint = {
          s: `agent-${i % 1000}/i/0`,
          p: 1,
          n: 'one',
          b: 'one',
          i: 1,
          g: `agent-${i % 1000}`,
          l: '',
          h: true,
        };
        const route = JSON.stringify({ a: `account-${i % 500}`, c: 1, e: [endpoint] });
        pipeline.hset(routesKey(shardOf(`many-${i}`)), `many-${i}`, route);
      }
      await pipeline.exec();
    }
  }

  test('does not grow with the number of tunnels, and a lookup costs nothing', { timeout: 60_000 }, async () => {
    const address = { kind: 'single', url: server.url } as const;
    const rates: number[] = [];
    for (const names of [10, MANY]) {
      await emptyButOpen([server.client]);
      // The node that serves them lives; its lease is the only thing that it renews.
      await server.client.hset(
        'culvert:v1:{nodes}:leases',
        'one',
        JSON.stringify({ i: 1, x: Date.now() + 600_000, r: '' }),
      );
      await fill(names);
      const registry = await openRegistry('two', address);
      assert.equal(registry.stats().tunnels, names);
      const started = performance.now();
      let found = 0;
      for (let i = 0; i < 500_000; i += 1) if (registry.lookup(`many-${i % names}`) !== undefined) found += 1;
      for (let i = 0; i < 100_000; i += 1) if (registry.lookup(`none-${i}`) !== undefined) found += 1;
      assert.equal(found, 500_000);
      assert.ok(performance.now() - started < 2000);
      const busy = setInterval(() => {
        for (let i = 0; i < 10_000; i += 1) registry.lookup(`many-${i % names}`);
      }, 20);
      rates.push(await commands(2 * LEASE));
      clearInterval(busy);
      await registry.close();
    }
    const [few = 0, many = 0] = rates;
    // Six renewals: a beat and 16 probes, each a script of a few commands, and a ping.
    assert.ok(few > 200 && few < 1000, `${few} commands`);
    assert.ok(Math.abs(many - few) < 0.25 * few, `${few} commands with 10 tunnels, ${many} with ${MANY}`);
  });

  test('beyond the size of the replica is one read for all who ask for a name, and none again for a while', async () => {
    await emptyButOpen([server.client]);
    const address = { kind: 'single', url: server.url } as const;
    const a = await openRegistry('one', address);
    const session = await a.openSession(claim());
    for (let i = 0; i < 40; i += 1) await a.register(session, tunnel(`name-${i}`), PLENTY);
    const small = await openRegistry('two', address, { maxNames: 10 });
    const outside = Array.from({ length: 40 }, (_, i) => `name-${i}`).filter(
      (name) => small.lookup(name) === undefined,
    );
    assert.equal(outside.length, 30);
    assert.deepEqual([small.isComplete, [...small.routes()].length], [false, 10]);
    const [name = ''] = outside;
    const reads = async (): Promise<number> =>
      Number(/cmdstat_hget:calls=(\d+)/.exec(await server.client.info('commandstats'))?.[1] ?? 0);
    await server.client.config('RESETSTAT');
    const routes = await Promise.all(Array.from({ length: 100 }, () => small.find(name)));
    assert.deepEqual(new Set(routes.map((route) => route?.name)), new Set([name]));
    assert.deepEqual(await small.find(name), a.lookup(name));
    const absent = Array.from({ length: 100 }, () => small.find('absent-1'));
    assert.deepEqual(new Set(await Promise.all(absent)), new Set([undefined]));
    // Renewals and probes read some fields; what matters is that 300 questions are not 300 reads.
    assert.ok((await reads()) < 60, `${await reads()} reads`);
    await a.register(session, tunnel(name, { healthy: false }), PLENTY);
    await small.caughtUp();
    assert.equal((await small.find(name))?.endpoints[0]?.healthy, false);
    await a.unregister(session, name);
    await small.caughtUp();
    assert.equal(await small.find(name), undefined);
    await Promise.all([a.close(), small.close()]);
  });

  test('keeps up when events are lost: the gap is found and the shard read again', async () => {
    await emptyButOpen([server.client]);
    const address = { kind: 'single', url: server.url } as const;
    const [a, b] = await Promise.all([openRegistry('one', address), openRegistry('two', address)]);
    const session = await a.openSession(claim());
    for (let round = 0; round < 5; round += 1) {
      await server.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
      const names = Array.from({ length: 20 }, (_, i) => `r${round}-${i}`);
      await Promise.all(names.map((name) => a.register(session, tunnel(name), PLENTY)));
      await b.caughtUp();
      await wait(LEASE / 3);
      await b.caughtUp();
      for (const name of names) assert.deepEqual(b.lookup(name), a.lookup(name));
      assert.equal(names.filter((name) => b.lookup(name) === undefined).length, 0);
    }
    await Promise.all([a.close(), b.close()]);
  });

  test('leaves neither timers nor connections behind after close', async () => {
    await emptyButOpen([server.client]);
    const registry = await openRegistry('one', { kind: 'single', url: server.url });
    await registry.openSession(claim());
    await registry.close();
    const clients = async (): Promise<number> =>
      String(await server.client.client('LIST'))
        .trim()
        .split('\n').length;
    for (let i = 0; i < 100 && (await clients()) > 1; i += 1) await wait(10);
    assert.equal(await clients(), 1);
    assert.deepEqual(
      process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap'),
      ['TCPSocketWrap'],
      'only the connection of the test itself',
    );
  });
});
