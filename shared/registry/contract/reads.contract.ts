import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claim, NODE_B, names, PLENTY, type TestCluster, tunnel, withCode } from './support.contract.ts';

/** Listing, counting, size, and the end. */
export function readContract(cluster: TestCluster, manyTunnels: number): void {
  test('byAccount lists the routes of the account only', async () => {
    const mine = await cluster.a.openSession(claim());
    const theirs = await cluster.b.openSession(claim({ accountId: 'other', agentId: 'agent-2' }));
    await cluster.a.register(mine, tunnel('one'), PLENTY);
    const two = await cluster.a.register(mine, tunnel('two.example'), PLENTY);
    await cluster.b.register(theirs, tunnel('three'), PLENTY);
    assert.deepEqual(names(await cluster.b.byAccount('acme')), ['one', 'two.example']);
    await cluster.a.unregister(mine, 'one');
    assert.deepEqual(await cluster.b.byAccount('acme'), [two]);
    assert.deepEqual(names(await cluster.a.byAccount('other')), ['three']);
    assert.deepEqual(await cluster.a.byAccount('nobody'), []);
  });

  test('routes and sessions give all that there is, on every node', async () => {
    const mine = await cluster.a.openSession(claim());
    const theirs = await cluster.b.openSession(claim({ accountId: 'other', agentId: 'agent-2', nodeId: NODE_B }));
    const one = await cluster.a.register(mine, tunnel('one'), PLENTY);
    const two = await cluster.b.register(theirs, tunnel('two.example'), PLENTY);
    await cluster.settled();
    const byId = (x: { id: string }, y: { id: string }): number => (x.id < y.id ? -1 : 1);
    for (const registry of [cluster.a, cluster.b]) {
      assert.equal(registry.isComplete, true);
      assert.deepEqual([...registry.sessions()].sort(byId), [mine, theirs].sort(byId));
      assert.deepEqual(
        [...registry.routes()].sort((x, y) => (x.name < y.name ? -1 : 1)),
        [one, two],
      );
    }
    const newer = await cluster.a.openSession(claim());
    await cluster.b.closeSession(theirs);
    await cluster.settled();
    for (const registry of [cluster.a, cluster.b]) {
      assert.deepEqual([...registry.sessions()], [newer]);
      assert.deepEqual(names([...registry.routes()]), ['one']);
    }
  });

  test('stats count tunnels, endpoints and sessions', async () => {
    const first = await cluster.a.openSession(claim());
    const second = await cluster.a.openSession(claim({ slot: 1 }));
    await cluster.a.register(first, tunnel('one'), PLENTY);
    await cluster.a.register(second, tunnel('one'), PLENTY);
    await cluster.a.register(second, tunnel('two'), PLENTY);
    await cluster.settled();
    assert.deepEqual(cluster.b.stats(), { tunnels: 2, endpoints: 3, sessions: 2 });
    await cluster.a.closeSession(second);
    await cluster.settled();
    assert.deepEqual(cluster.b.stats(), { tunnels: 1, endpoints: 1, sessions: 1 });
  });

  test('after close claims are refused as unavailable', async () => {
    assert.equal(cluster.a.unavailable(), undefined);
    const session = await cluster.a.openSession(claim());
    await cluster.a.close();
    await cluster.a.close();
    assert.equal(cluster.a.unavailable()?.code, 'registry_unavailable');
    await assert.rejects(cluster.a.openSession(claim()), withCode('registry_unavailable'));
    await assert.rejects(cluster.a.register(session, tunnel('api'), PLENTY), withCode('registry_unavailable'));
    await assert.rejects(cluster.a.byAccount('acme'), withCode('registry_unavailable'));
  });

  test(`${manyTunnels} tunnels do not make one operation slow`, { timeout: 300_000 }, async () => {
    const perSession = 100;
    const whenEmpty = await smallAccountRounds(cluster);
    for (let s = 0; s < manyTunnels / perSession; s += 1) {
      const session = await cluster.a.openSession(claim({ agentId: `agent-${s}`, accountId: `account-${s % 500}` }));
      const registered = Array.from({ length: perSession }, (_, t) =>
        cluster.a.register(session, tunnel(`t-${s}-${t}`), PLENTY),
      );
      await Promise.all(registered);
    }
    await cluster.settled();
    assert.equal(cluster.b.stats().tunnels, manyTunnels);

    // An operation that walks 100,000 tunnels adds about a millisecond each time; the slack is for a busy machine.
    const whenFull = await smallAccountRounds(cluster);
    assert.ok(whenFull < 4 * whenEmpty + 200, `${whenEmpty} ms when empty became ${whenFull} ms`);
    const started = performance.now();
    for (let round = 0; round < 200_000; round += 1) cluster.b.lookup(`t-${round % 1000}-7`);
    const lookups = performance.now() - started;
    assert.ok(lookups < 1000, `200,000 lookups took ${lookups} ms`);
  });
}

/** Milliseconds that 500 rounds of every operation take on an account with one session and one tunnel. */
async function smallAccountRounds(cluster: TestCluster): Promise<number> {
  const started = performance.now();
  for (let round = 0; round < 500; round += 1) {
    const account = { accountId: 'small', agentId: 'small', instanceId: `i${round}`, maxSessionsPerAccount: 1 };
    const session = await cluster.a.openSession(claim(account));
    await cluster.a.register(session, tunnel('small'), 1);
    assert.equal((await cluster.a.byAccount('small')).length, 1);
    assert.equal((await cluster.a.byAgent('small')).length, 1);
    cluster.a.stats();
    await cluster.a.unregister(session, 'small');
    await cluster.a.closeSession(session);
  }
  return performance.now() - started;
}
