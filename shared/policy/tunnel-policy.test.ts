import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rows } from '../protocol/vectors/spec.ts';
import { BALANCES, decodePolicy, encodePolicy, MAX_POLICY_LENGTH, POLICY_KEYS, parsePolicy } from './tunnel-policy.ts';

describe('a tunnel policy', () => {
  test('has the rules, values and limit that PROTOCOL.md gives it', () => {
    const documented = rows('Tunnel policy');
    assert.deepEqual(
      documented.map(([rule]) => rule),
      POLICY_KEYS,
    );
    const [balance = []] = documented.filter(([rule]) => rule === 'balance');
    assert.deepEqual(balance[2]?.replaceAll('`', '').split(', '), [...BALANCES]);
    assert.equal(MAX_POLICY_LENGTH, 16_384);
  });

  test('comes back from its JSON as it was', () => {
    for (const balance of BALANCES) assert.deepEqual(decodePolicy(encodePolicy(parsePolicy({ balance }))), { balance });
    assert.deepEqual(decodePolicy(encodePolicy(parsePolicy({}))), {});
  });

  for (const [what, input, message] of [
    ['a rule that it does not know', { balance: 'sticky', allow: ['10.0.0.0/8'] }, /allow/],
    ['a value that it does not know', { balance: 'nearest' }, /balance: .*least-loaded/],
    ['anything but an object', ['sticky'], /policy: /],
  ] as const) {
    test(`refuses ${what}, and cannot be read with it`, () => {
      assert.throws(() => parsePolicy(input), { code: 'invalid_config', message });
      assert.equal(decodePolicy(JSON.stringify(input)), undefined);
    });
  }

  test('is not read from what is no JSON', () => {
    assert.equal(decodePolicy('{'), undefined);
  });
});
