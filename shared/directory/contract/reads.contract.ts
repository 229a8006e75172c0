import assert from 'node:assert/strict';
import { test } from 'node:test';
import { account, agent, type TestDirectories, withCode } from './support.contract.ts';

/** Listing, and the end. */
export function readContract(nodes: TestDirectories): void {
  test('lists are in the order of ids, in pages, and of what is asked for', async () => {
    for (const id of ['b', 'a', 'd', 'c', 'Z']) {
      await nodes.a.put('account', id, account({ disabled: id === 'c', name: id }), 0);
    }
    await nodes.settled();
    const ids = (page = {}): string[] => nodes.b.list('account', page).map(({ id }) => id);
    assert.deepEqual(ids(), ['Z', 'a', 'b', 'c', 'd']);
    assert.deepEqual(ids({ limit: 2 }), ['Z', 'a']);
    assert.deepEqual(ids({ after: 'a', limit: 2 }), ['b', 'c']);
    assert.deepEqual(ids({ after: 'bb' }), ['c', 'd']);
    assert.deepEqual(ids({ after: 'd' }), []);
    assert.deepEqual(nodes.b.list('account', { where: ({ disabled }) => disabled }).map(({ id }) => id), ['c']); // biome-ignore format: one line
    assert.deepEqual([nodes.b.count('account'), nodes.b.count('agent')], [5, 0]);
    await nodes.a.remove('account', 'b', nodes.a.get('account', 'b')?.version ?? 0);
    await nodes.settled();
    assert.deepEqual(ids({ after: 'a', limit: 1 }), ['c']);
  });

  test('agents of two accounts may have one id', async () => {
    await nodes.a.put('agent', 'acme/laptop', agent(), 0);
    await nodes.b.put('agent', 'other/laptop', agent({ accountId: 'other', disabled: true }), 0);
    await nodes.settled();
    assert.equal(nodes.a.get('agent', 'acme/laptop')?.disabled, false);
    assert.equal(nodes.a.get('agent', 'other/laptop')?.disabled, true);
  });

  test('a record that was read stays as it was', async () => {
    const made = await nodes.a.put('account', 'acme', account(), 0);
    const read = nodes.a.get('account', 'acme');
    await nodes.a.put('account', 'acme', account({ disabled: true }), made.version);
    assert.equal(read?.disabled, false);
    assert.throws(() => Object.assign(nodes.a.get('account', 'acme') ?? {}, { disabled: false }), TypeError);
  });

  test('after close changes are refused as unavailable', async () => {
    assert.equal(nodes.a.unavailable(), undefined);
    assert.equal(nodes.a.unloaded(), undefined);
    assert.equal(nodes.a.status().state, 'ready');
    await nodes.a.close();
    await nodes.a.close();
    assert.equal(nodes.a.unavailable()?.code, 'registry_unavailable');
    await assert.rejects(nodes.a.put('account', 'acme', account(), 0), withCode('registry_unavailable'));
    await assert.rejects(nodes.a.remove('account', 'acme', 1), withCode('registry_unavailable'));
  });
}
