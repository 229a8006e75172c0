import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../testkit/eventually.ts';
import { type SentinelGroup, startRedisSentinel } from '../../testkit/redis-server.ts';
import { claim, epochs, PLENTY, tunnel } from '../contract/support.contract.ts';
import type { NodeId } from '../registry.ts';
import { emptyButOpen, LEASE, openRegistry, usable } from './support.contract.ts';

describe('a failover to a replica', () => {
  let group: SentinelGroup;
  before(async () => {
    group = await startRedisSentinel();
  });
  after(() => group.close());

  test('loses no route, gives no name away and needs no restart', async (t) => {
    await emptyButOpen([group.master.client]);
    const address = { kind: 'sentinel', sentinels: [group.sentinel], name: group.name } as const;
    const a = await openRegistry('node-a', address);
    const b = await openRegistry('node-b', address);
    t.after(() => Promise.all([a.close(), b.close()]));
    const session = await a.openSession(claim());
    const names = Array.from({ length: 20 }, (_, i) => `name-${i}`);
    // The replica stops hearing of the master: what follows is lost in the failover.
    await group.replica.client.replicaof('127.0.0.1', '1');
    await Promise.all(names.map((name) => a.register(session, tunnel(name), PLENTY)));
    await b.caughtUp();
    const served = (): boolean =>
      names.every((name) => [a, b].every((node) => epochs(node.lookup(name))[0] === session.epoch));
    assert.ok(served());
    await group.master.kill();
    let stolen = 0;
    let broken = 0;
    const started = performance.now();
    const seen = until(
      'a claim works again',
      async () => {
        if (!served()) broken += 1;
        const thief = await b
          .openSession(claim({ accountId: 'evil', agentId: 'agent-2', nodeId: 'node-b' as NodeId }))
          .catch(() => undefined);
        if (thief === undefined) return false;
        const results = await Promise.allSettled(names.map((name) => b.register(thief, tunnel(name), PLENTY)));
        stolen += results.filter(({ status }) => status === 'fulfilled').length;
        return true;
      },
      15_000,
    );
    await seen;
    assert.ok(performance.now() - started >= LEASE, 'claims waited for a lease');
    assert.deepEqual({ stolen, broken }, { stolen: 0, broken: 0 });
    await usable(a);
    await wait(LEASE);
    await b.caughtUp();
    assert.ok(served());
    assert.match(await group.replica.client.info('replication'), /role:master/);
  });
});
