import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { type NodeId, type SessionRecord, sessionId } from '../registry.ts';
import { EVENTS, NODE_KEYS, routesKey, shardOf } from './keys.ts';
import { endpointFor } from './rebuild.ts';
import { parseRoute, type StoredRoute, storedSession } from './records.ts';
import { Scripts } from './scripts.ts';
import { emptyButOpen } from './support.contract.ts';

const LEASE = 1000;

function record(epoch: number): SessionRecord {
  const id = sessionId('agent', 'i', 0);
  const nodeId = 'one' as NodeId;
  return { id, epoch, agentId: 'agent', accountId: 'acme', instanceId: 'i', slot: 0, nodeId, openedAt: 1 };
}

/** Writes that come late, in the orders that a delayed connection can bring about. */
describe('a write that comes late', () => {
  let server: RedisServer;
  let scripts: Scripts;
  before(async () => {
    server = await startRedis();
    scripts = new Scripts(server.client, LEASE);
  });
  after(() => server.close());
  beforeEach(() => emptyButOpen([server.client]));

  async function claim(epoch: number, incarnation = 1, healthy = true): Promise<unknown> {
    const endpoint = endpointFor(record(epoch), { name: 'api', localAddr: '', healthy }, 'one', incarnation);
    return (await scripts.claim('api', 'acme', endpoint))[0];
  }

  async function route(): Promise<StoredRoute | undefined> {
    const json = await server.client.hget(routesKey(shardOf('api')), 'api');
    return json === null ? undefined : parseRoute(json);
  }

  test('of a session that ended does not bring its endpoint back', async () => {
    await claim(5);
    await scripts.release('api', record(5), true);
    assert.equal(await claim(5), 'replaced');
    assert.equal(await claim(4), 'replaced');
    assert.equal(await route(), undefined);
    assert.equal(await claim(6), 'ok');
  });

  test('of an older epoch neither replaces nor releases the newer endpoint', async () => {
    await claim(6);
    assert.equal(await claim(5, 1, false), 'replaced');
    await scripts.release('api', record(5), true);
    assert.deepEqual(
      (await route())?.e.map(({ p, h }) => [p, h]),
      [[6, true]],
    );
  });

  test('of a session that unregistered leaves the session free to register again', async () => {
    await claim(5);
    await scripts.release('api', record(5), false);
    assert.equal(await claim(4), 'replaced');
    assert.equal(await claim(5), 'ok');
  });

  test('of a sweep removes nothing of a node that came back', async () => {
    await claim(5, 1);
    await claim(5, 2);
    await scripts.sweep('api', 'one', 1);
    assert.equal((await route())?.e.length, 1);
    await scripts.sweep('api', 'one', 2);
    assert.equal(await route(), undefined);
  });

  test('of an older incarnation does not put the endpoint back under it', async () => {
    await claim(5, 2);
    await claim(5, 1, false);
    assert.deepEqual(
      (await route())?.e.map(({ i, h }) => [i, h]),
      [[2, false]],
    );
  });

  test('closing an older session removes neither the record nor the names of the newer one', async () => {
    const opened = async (epoch: number): Promise<unknown> =>
      (await scripts.open(record(epoch).id, storedSession(record(epoch), 'one', 1), 10))[0];
    assert.equal(await opened(5), 'ok');
    assert.equal((await scripts.reserve('acme', record(5), 'api', 10))[0], 'ok');
    assert.equal(await opened(6), 'ok');
    assert.equal(await opened(5), 'older');
    assert.equal((await scripts.reserve('acme', record(6), 'api', 10))[0], 'ok');
    assert.equal((await scripts.closing('acme', record(5)))[0], 'stale');
    await scripts.closed('acme', record(5));
    await scripts.drop('acme', record(5), ['api']);
    assert.deepEqual((await scripts.closing('acme', record(6))).slice(3), ['api']);
    assert.equal((await scripts.reserve('acme', record(6), 'api', 10))[0], 'replaced');
  });

  test('of a session whose place another account took is refused', async () => {
    const id = record(1).id;
    assert.equal((await scripts.own('agent', id, 'acme', 0))[0], 'ok');
    assert.equal((await scripts.own('agent', id, 'evil', 0))[0], 'taken');
  });

  test('declaring a node dead is refused while its lease stands, or when leases were not renewed for a while', async () => {
    const leases = async (until: number, steady: number): Promise<void> => {
      await server.client.hset(NODE_KEYS.leases, 'one', JSON.stringify({ i: 7, x: until, r: '' }));
      await server.client.hset(NODE_KEYS.meta, { last: Date.now(), steady });
    };
    const now = Date.now();
    await leases(now + 60_000, 0);
    assert.deepEqual(await scripts.declare('one', 7), ['alive']);
    await leases(now - 1, now);
    assert.deepEqual(await scripts.declare('one', 7), ['alive']);
    await leases(now - 1, 0);
    assert.deepEqual(await scripts.declare('one', 6), ['alive']);
    assert.deepEqual(await scripts.declare('one', 7), ['ok']);
    assert.deepEqual(await scripts.declare('one', 7), ['alive']);
    const [, , incarnation, wasUnknown] = await scripts.beat('one', 7, '', false);
    assert.ok(Number(incarnation) > 7);
    assert.equal(wasUnknown, 1);
  });

  test('cannot use the moment in which the data is lost: the first claim finds the shard closed', async () => {
    await server.client.flushall();
    assert.equal(await claim(5), 'rebuilding');
    const endpoint = endpointFor(record(5), { name: 'api', localAddr: '', healthy: true }, 'one', 1);
    assert.equal((await scripts.claim('api', 'acme', endpoint, 1))[0], 'ok');
    assert.equal((await scripts.claim('api', 'evil', endpoint))[0], 'taken');
    const opened = await scripts.open(record(5).id, storedSession(record(5), 'one', 1), 10);
    assert.equal(opened[0], 'rebuilding');
  });

  test('makes no event when it changes nothing', async () => {
    const subscriber = server.client.duplicate();
    const events: string[] = [];
    await subscriber.subscribe(EVENTS);
    subscriber.on('message', (_: string, text: string) => events.push(text));
    await claim(5);
    await claim(5);
    await claim(4);
    await scripts.release('api', record(4), true);
    await subscriber.ping();
    subscriber.disconnect();
    assert.equal(events.length, 1);
  });
});
