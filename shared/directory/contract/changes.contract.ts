import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DirectoryEvent } from '../directory.ts';
import { removeAccount } from '../operations.ts';
import { agentRecordId, type FieldsOf } from '../records.ts';
import { account, agent, keySpec, TEST_LIMITS, type TestDirectories, withCode } from './support.contract.ts';

const HASH = 'h'.repeat(43);

/** Writing and removing, and what others see of it. */
export function changeContract(nodes: TestDirectories): void {
  test('a record is there at once for its writer, and soon for the other node', async () => {
    const before = Date.now();
    const made = await nodes.a.put('account', 'acme', account({ limits: { tunnels: 5, more: { deep: [] } } }), 0);
    assert.deepEqual(nodes.a.get('account', 'acme'), made);
    assert.deepEqual(made, {
      ...account({ limits: { tunnels: 5, more: { deep: [] } } }),
      id: 'acme',
      version: made.version,
      createdAt: made.createdAt,
    });
    assert.ok(Math.abs(made.createdAt - before) < 60_000, `${made.createdAt}`);
    await nodes.settled();
    assert.deepEqual(nodes.b.get('account', 'acme'), made);
  });

  test('a change keeps the time of creation and raises the version', async () => {
    const made = await nodes.a.put('account', 'acme', account(), 0);
    const changed = await nodes.b.put('account', 'acme', account({ disabled: true }), made.version);
    assert.equal(changed.createdAt, made.createdAt);
    assert.ok(changed.version > made.version);
    assert.equal(nodes.b.get('account', 'acme')?.disabled, true);
    await nodes.settled();
    assert.deepEqual(nodes.a.get('account', 'acme'), changed);
  });

  test('whoever read an older version changes nothing', async () => {
    const made = await nodes.a.put('account', 'acme', account(), 0);
    const changed = await nodes.a.put('account', 'acme', account({ disabled: true }), made.version);
    await assert.rejects(nodes.b.put('account', 'acme', account(), made.version), withCode('conflict'));
    await assert.rejects(nodes.b.put('account', 'acme', account(), 0), withCode('conflict'));
    await assert.rejects(nodes.b.remove('account', 'acme', made.version), withCode('conflict'));
    // After the refusal the node knows what refused it, without waiting for anything else.
    assert.deepEqual(nodes.b.get('account', 'acme'), changed);
  });

  test('what is not there cannot be changed or removed', async () => {
    await assert.rejects(nodes.a.put('account', 'acme', account(), 7), withCode('not_found'));
    await assert.rejects(nodes.a.remove('account', 'acme', 7), withCode('not_found'));
    assert.equal(nodes.a.get('account', 'acme'), undefined);
  });

  test('of two nodes that change one record at once exactly one wins, each time', async () => {
    let { version } = await nodes.a.put('account', 'acme', account(), 0);
    for (let round = 0; round < 50; round += 1) {
      const results = await Promise.allSettled(
        [nodes.a, nodes.b].map((node, i) => node.put('account', 'acme', account({ name: `${round} ${i}` }), version)),
      );
      const won = results.filter((result) => result.status === 'fulfilled');
      assert.equal(won.length, 1);
      const lost = results.find((result) => result.status === 'rejected');
      assert.ok(lost?.status === 'rejected' && withCode('conflict')(lost.reason));
      version = won[0]?.value.version ?? 0;
      await nodes.settled();
      assert.deepEqual(nodes.a.get('account', 'acme'), nodes.b.get('account', 'acme'));
    }
  });

  test('a record that was removed can be made again, with a higher version', async () => {
    const made = await nodes.a.put('account', 'acme', account(), 0);
    await nodes.b.remove('account', 'acme', made.version);
    assert.equal(nodes.b.get('account', 'acme'), undefined);
    await nodes.settled();
    assert.equal(nodes.a.get('account', 'acme'), undefined);
    const again = await nodes.a.put('account', 'acme', account(), 0);
    assert.ok(again.version > made.version);
    assert.ok(again.createdAt > made.createdAt);
  });

  test('fields that are not valid, or not of this id, are refused before the store is asked', async () => {
    const wrong: [Parameters<typeof nodes.a.put>[0], string, FieldsOf<'account'> | FieldsOf<'agent'>][] = [
      ['account', 'a/b', account()],
      ['account', '', account()],
      ['account', 'acme', account({ name: 'x'.repeat(201) })],
      ['account', 'acme', account({ limits: { big: 'x'.repeat(40_000) } })],
      ['agent', 'other/laptop', agent()],
      ['agent', 'laptop', agent()],
    ];
    for (const [kind, id, fields] of wrong) {
      await assert.rejects(nodes.a.put(kind, id, fields, 0), withCode('bad_request'), `${kind} ${id}`);
    }
    const key = { ...keySpec(), hash: HASH, issuedAt: 1, previous: null };
    await assert.rejects(nodes.a.put('key', 'short', key, 0), withCode('bad_request'));
    await assert.rejects(nodes.a.put('key', 'a'.repeat(16), { ...key, scopes: [] }, 0), withCode('bad_request'));
    assert.equal(nodes.a.count('account') + nodes.a.count('agent') + nodes.a.count('key'), 0);
  });

  test('an agent or key does not move to another account', async () => {
    const key = { ...keySpec(), hash: HASH, issuedAt: 1, previous: null };
    const { version } = await nodes.a.put('key', 'a'.repeat(16), key, 0);
    const moved = nodes.a.put('key', 'a'.repeat(16), { ...key, accountId: 'other' }, version);
    await assert.rejects(moved, withCode('bad_request'));
  });

  test('there are no more records than the limit allows, and room again when one is removed', async () => {
    const made = [];
    for (let i = 0; i < TEST_LIMITS.account; i += 1) made.push(await nodes.a.put('account', `a${i}`, account(), 0));
    await nodes.settled();
    await assert.rejects(nodes.b.put('account', 'more', account(), 0), withCode('quota_exceeded'));
    // A change of what is there needs no room.
    await nodes.b.put('account', 'a1', account({ disabled: true }), made[1]?.version ?? 0);
    await nodes.b.remove('account', 'a0', made[0]?.version ?? 0);
    await nodes.b.put('account', 'more', account(), 0);
    assert.equal(nodes.b.count('account'), TEST_LIMITS.account);
  });

  test('an account with agents or keys is not removed, and removeAccount removes all of it', async () => {
    const { version } = await nodes.a.put('account', 'acme', account(), 0);
    await nodes.a.put('agent', agentRecordId('acme', 'laptop'), agent(), 0);
    await nodes.b.put('key', 'a'.repeat(16), { ...keySpec(), hash: HASH, issuedAt: 1, previous: null }, 0);
    await nodes.b.put(
      'key',
      'b'.repeat(16),
      { ...keySpec({ accountId: 'other' }), hash: HASH, issuedAt: 1, previous: null },
      0,
    );
    await nodes.settled();
    await assert.rejects(nodes.a.remove('account', 'acme', version), withCode('conflict'));
    await assert.rejects(removeAccount(nodes.a, 'acme', version + 1, 'root'), withCode('conflict'));
    assert.ok(nodes.a.get('account', 'acme'));
    await removeAccount(nodes.a, 'acme', version, 'root');
    await nodes.settled();
    assert.equal(nodes.b.get('account', 'acme'), undefined);
    assert.deepEqual(nodes.b.list('agent'), []);
    assert.deepEqual(nodes.b.list('key').map(({ id }) => id), ['b'.repeat(16)]); // biome-ignore format: one line
    // Without its record the account would be one that only tokens decide about.
    assert.equal(nodes.b.get('revocation', 'account:acme')?.reason, 'the account was removed');
    await nodes.b.put('account', 'acme', account(), 0);
    await assert.rejects(removeAccount(nodes.a, 'nobody', 1, 'root'), withCode('not_found'));
  });

  test('every node hears of each change, once and in order', async () => {
    const heard: string[][] = [[], []];
    const note = (at: number) => (event: DirectoryEvent) => {
      if (event.type === 'record') heard[at]?.push(`${event.kind} ${event.id}`);
    };
    const stop = [nodes.a.subscribe(note(0)), nodes.b.subscribe(note(1))];
    const { version } = await nodes.a.put('account', 'acme', account(), 0);
    await nodes.a.put('agent', 'acme/laptop', agent(), 0);
    await nodes.b.put('account', 'acme', account({ disabled: true }), version);
    await nodes.settled();
    const expected = ['account acme', 'agent acme/laptop', 'account acme'];
    assert.deepEqual(heard, [expected, expected]);
    for (const end of stop) end();
    await nodes.a.put('account', 'other', account(), 0);
    await nodes.settled();
    assert.deepEqual(heard, [expected, expected]);
  });
}
