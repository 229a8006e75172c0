import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ErrorCode } from '../../errors/codes.ts';
import { authenticateKey, type Bearer, isNameRevoked, judge } from '../access.ts';
import { createKey, revoke, rotateKey, sweep } from '../operations.ts';
import { LONGEST_REVOCATION, type Target } from '../records.ts';
import { account, agent, keySpec, type TestDirectories, withCode } from './support.contract.ts';

const NOW = 1_800_000_000_000;
const HOUR = 3_600_000;
const BEARER: Bearer = { accountId: 'acme', agentId: 'laptop', tokenId: 't1', issuedAt: NOW - HOUR };

/** Who is let in, as every node sees it. */
export function accessContract(nodes: TestDirectories): void {
  /** What both nodes say, after checking that they say the same. */
  async function asked(bearer: Partial<Bearer> = {}, requireAccounts = false, now = NOW): Promise<ErrorCode | 'in'> {
    await nodes.settled();
    const [one, other] = [nodes.a, nodes.b].map((node) =>
      judge(node, { ...BEARER, ...bearer }, { requireAccounts }, now),
    );
    assert.deepEqual(one, other);
    return one?.refusal?.code ?? 'in';
  }

  async function revoked(target: Target, request: { before?: number; endsAt?: number } = {}): Promise<void> {
    await revoke(nodes.a, { target, by: 'root', reason: 'lost', ...request }, NOW);
  }

  test('without records the token alone decides, unless accounts are required', async () => {
    assert.equal(await asked(), 'in');
    assert.equal(await asked({}, true), 'access_revoked');
    await nodes.a.put('account', 'acme', account(), 0);
    assert.equal(await asked({}, true), 'in');
    assert.equal(await asked({ accountId: 'other' }, true), 'access_revoked');
  });

  test('a disabled account or agent is refused until it is enabled again, and nobody else is', async () => {
    const { version } = await nodes.a.put('account', 'acme', account({ disabled: true }), 0);
    assert.equal(await asked(), 'access_revoked');
    assert.equal(await asked({ accountId: 'other' }), 'in');
    await nodes.b.put('account', 'acme', account(), version);
    assert.equal(await asked(), 'in');
    await nodes.b.put('agent', 'acme/laptop', agent({ disabled: true }), 0);
    assert.equal(await asked(), 'access_revoked');
    assert.equal(await asked({ agentId: 'desk' }), 'in');
    assert.equal(await asked({ accountId: 'other' }), 'in');
  });

  test('a revoked token is refused, another of the same agent is not', async () => {
    await revoked({ type: 'token', tokenId: 't1' });
    assert.equal(await asked(), 'access_revoked');
    assert.equal(await asked({ tokenId: 't2' }), 'in');
  });

  test('a revocation of an account or agent refuses what was issued before it', async () => {
    for (const target of [
      { type: 'account', accountId: 'acme' },
      { type: 'agent', accountId: 'acme', agentId: 'laptop' },
    ] as const) {
      await revoked(target, { before: NOW - 2 * HOUR });
      assert.equal(await asked(), 'in', target.type);
      await revoked(target, { before: NOW - HOUR / 2 });
      assert.equal(await asked(), 'access_revoked', target.type);
      assert.equal(await asked({ issuedAt: NOW }), 'in', target.type);
      // Biome would drop the key otherwise: a token that does not say when it was issued.
      const { issuedAt: _, ...silent } = BEARER;
      await nodes.settled();
      assert.equal(judge(nodes.b, silent, { requireAccounts: false }, NOW).refusal?.code, 'access_revoked');
      const id = target.type === 'account' ? 'account:acme' : 'agent:acme/laptop';
      await nodes.a.remove('revocation', id, nodes.a.get('revocation', id)?.version ?? 0);
      assert.equal(await asked(), 'in', target.type);
    }
  });

  test('two revocations of one target refuse all that either does, also from two nodes at once', async () => {
    const target = { type: 'account', accountId: 'acme' } as const;
    const request = { target, by: 'root', reason: '' };
    await Promise.all([
      revoke(nodes.a, { ...request, before: NOW - 2 * HOUR, endsAt: NOW + 9 * HOUR, reason: 'one' }, NOW),
      revoke(nodes.b, { ...request, before: NOW - HOUR / 2, endsAt: NOW + HOUR, reason: 'two' }, NOW),
    ]);
    await nodes.settled();
    const { before, endsAt } = nodes.a.get('revocation', 'account:acme') ?? {};
    assert.deepEqual([before, endsAt], [NOW - HOUR / 2, NOW + 9 * HOUR]);
    await revoke(nodes.b, { ...request, before: NOW - 3 * HOUR, endsAt: NOW + HOUR }, NOW);
    assert.equal(await asked({}, false, NOW + 8 * HOUR), 'access_revoked');
  });

  test('a revocation counts until its end, ten years at most, and is swept then', async () => {
    await revoked({ type: 'token', tokenId: 't1' }, { endsAt: NOW + HOUR });
    await revoked({ type: 'name', name: 'api' });
    assert.equal(await asked({}, false, NOW + HOUR - 1), 'access_revoked');
    assert.equal(await asked({}, false, NOW + HOUR), 'in');
    await nodes.settled();
    assert.equal(nodes.b.get('revocation', 'name:api')?.endsAt, NOW + LONGEST_REVOCATION);
    const swept = await Promise.all([sweep(nodes.a, NOW + HOUR), sweep(nodes.b, NOW + HOUR)]);
    assert.equal(swept[0] + swept[1], 1);
    await nodes.settled();
    assert.deepEqual(nodes.a.list('revocation').map(({ id }) => id), ['name:api']); // biome-ignore format: one line
  });

  test('a name is revoked for everybody', async () => {
    assert.equal(isNameRevoked(nodes.b, 'api', NOW), false);
    await revoked({ type: 'name', name: 'api' });
    await nodes.settled();
    assert.equal(isNameRevoked(nodes.b, 'api', NOW), true);
    assert.equal(isNameRevoked(nodes.b, 'api2', NOW), false);
    assert.equal(isNameRevoked(nodes.b, 'api', NOW + LONGEST_REVOCATION), false);
  });

  test('a key opens on every node, and neither a wrong one nor its record does', async () => {
    const { record, key } = await createKey(nodes.a, keySpec(), NOW);
    await nodes.settled();
    assert.match(key, /^cvk_[a-z0-9]{16}_[\w-]{43}$/);
    assert.deepEqual(authenticateKey(nodes.b, key, NOW).record, record);
    assert.equal(JSON.stringify(nodes.b.list('key')).includes(key.slice(21)), false);
    for (const wrong of [
      `${key}x`,
      key.slice(0, -1),
      key.toUpperCase(),
      `cvk_${record.id}_${record.hash}`,
      '',
      'cvk_',
      `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`,
    ]) {
      assert.throws(() => authenticateKey(nodes.b, wrong, NOW), withCode('invalid_token'), wrong);
    }
  });

  test('a key ends when it expires, is removed, or is revoked for good', async () => {
    const dies = await createKey(nodes.a, keySpec({ expiresAt: NOW + HOUR }), NOW);
    const goes = await createKey(nodes.a, keySpec(), NOW);
    const taken = await createKey(nodes.a, keySpec({ expiresAt: NOW + HOUR }), NOW);
    await nodes.settled();
    const { proof } = authenticateKey(nodes.b, dies.key, NOW);
    assert.equal(judge(nodes.b, { ...BEARER, key: proof }, { requireAccounts: false }, NOW).until, NOW + HOUR);
    assert.throws(() => authenticateKey(nodes.b, dies.key, NOW + HOUR), withCode('invalid_token'));
    await nodes.b.remove('key', goes.record.id, goes.record.version);
    await revoked({ type: 'key', keyId: taken.record.id }, { endsAt: NOW + 1 });
    await nodes.settled();
    assert.throws(() => authenticateKey(nodes.a, goes.key, NOW), withCode('invalid_token'));
    assert.throws(() => authenticateKey(nodes.b, taken.key, NOW), withCode('access_revoked'));
    // A later end of the key does not outlive its revocation.
    await nodes.a.put('key', taken.record.id, { ...taken.record, expiresAt: NOW + 99 * HOUR }, taken.record.version);
    await sweep(nodes.a, NOW + 10 * HOUR);
    await nodes.settled();
    assert.throws(() => authenticateKey(nodes.b, taken.key, NOW + 10 * HOUR), withCode('access_revoked'));
    await assert.rejects(
      revoke(nodes.a, { target: { type: 'key', keyId: 'x'.repeat(16) }, by: 'root' }),
      withCode('not_found'),
    );
  });

  test('keys that expired are forgotten after a while, with their revocations', async () => {
    const { record } = await createKey(nodes.a, keySpec({ expiresAt: NOW + HOUR }), NOW);
    await revoked({ type: 'key', keyId: record.id });
    assert.equal(await sweep(nodes.a, NOW + 2 * HOUR), 0);
    assert.equal(await sweep(nodes.a, NOW + 31 * 24 * HOUR), 2);
    assert.deepEqual([nodes.a.count('key'), nodes.a.count('revocation')], [0, 0]);
  });

  test('a rotated key opens beside its successor for as long as it was given', async () => {
    const first = await createKey(nodes.a, keySpec(), NOW);
    const second = await rotateKey(nodes.a, first.record.id, HOUR, NOW);
    await nodes.settled();
    for (const key of [first.key, second.key]) assert.ok(authenticateKey(nodes.b, key, NOW));
    const { proof } = authenticateKey(nodes.b, first.key, NOW);
    assert.equal(judge(nodes.b, { ...BEARER, key: proof }, { requireAccounts: false }, NOW).until, NOW + HOUR);
    assert.throws(() => authenticateKey(nodes.b, first.key, NOW + HOUR), withCode('invalid_token'));
    const third = await rotateKey(nodes.a, first.record.id, 0, NOW);
    await nodes.settled();
    for (const key of [first.key, second.key]) {
      assert.throws(() => authenticateKey(nodes.b, key, NOW), withCode('invalid_token'));
    }
    assert.equal(authenticateKey(nodes.b, third.key, NOW).record.id, first.record.id);
  });

  test('a revocation of the account takes its keys back too, but not one that was rotated since', async () => {
    const { record, key } = await createKey(nodes.a, keySpec(), NOW - HOUR);
    await revoked({ type: 'account', accountId: 'acme' });
    await nodes.settled();
    const proofOf = (text: string) => authenticateKey(nodes.b, text, NOW).proof;
    assert.equal(await asked({ key: proofOf(key) }), 'access_revoked');
    const fresh = await rotateKey(nodes.a, record.id, HOUR, NOW);
    await nodes.settled();
    assert.equal(await asked({ key: proofOf(fresh.key) }), 'in');
    assert.equal(await asked({ key: proofOf(key) }), 'access_revoked');
  });
}
