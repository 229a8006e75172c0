import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { until } from '../../testkit/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../../testkit/fault-proxy.ts';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { claim, epochs, PLENTY, tunnel } from '../contract/support.contract.ts';
import { emptyButOpen, LEASE, openRegistry } from './support.contract.ts';

let server: RedisServer;
let way: FaultProxy;
before(async () => {
  server = await startRedis();
  way = await startFaultProxy(server.port);
});
after(async () => {
  await way.close();
  await server.close();
});

// What a node held was fenced off for a minute when it was swept, as if its sessions had ended. A node that had only lost Redis
// then kept its agents' sessions, and no visitor of another node ever found them again.
test('a node that was swept while it was cut off from redis publishes its sessions again', async (t) => {
  await emptyButOpen([server.client]);
  const a = await openRegistry('node-a', { kind: 'single', url: `redis://127.0.0.1:${way.port}` });
  const b = await openRegistry('node-b', { kind: 'single', url: server.url });
  t.after(() => Promise.all([a.close(), b.close()]));
  const session = await a.openSession(claim());
  await a.register(session, tunnel('api'), PLENTY);
  await b.caughtUp();
  assert.deepEqual(epochs(b.lookup('api')), [session.epoch]);
  for (let round = 0; round < 2; round += 1) {
    way.silence();
    await until('its endpoint is swept', () => b.lookup('api') === undefined, 10 * LEASE);
    await until('its session is swept', async () => (await b.byAgent('agent-1')).length === 0, 10 * LEASE);
    way.heal();
    await until('its endpoint is back', () => epochs(b.lookup('api'))[0] === session.epoch, 10 * LEASE);
    await until('its session is back', async () => (await b.byAgent('agent-1')).length === 1, 10 * LEASE);
  }
  assert.equal((await b.byAccount('acme')).length, 1);
  await a.closeSession(session);
  await until('it is gone', () => b.lookup('api') === undefined);
  assert.deepEqual(await b.byAccount('acme'), []);
});
