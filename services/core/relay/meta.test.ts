import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sessionId } from '../../../shared/registry/registry.ts';
import { takeEndpoint, withEndpoint } from './meta.ts';

const ref = { id: sessionId('agent.1', 'a:b@c_d', 3), epoch: 1_790_000_000_123 };

describe('the metadata of a relayed request', () => {
  test('names the endpoint, and the rest of it goes on', () => {
    assert.deepEqual(takeEndpoint(withEndpoint('', ref)), { endpoint: ref, rest: '' });
    assert.deepEqual(takeEndpoint(withEndpoint('a=1 b=2', ref)), { endpoint: ref, rest: 'a=1 b=2' });
  });

  test('may name none', () => {
    assert.deepEqual(takeEndpoint(''), { endpoint: undefined, rest: '' });
    assert.deepEqual(takeEndpoint('a=1 x'), { endpoint: undefined, rest: 'a=1 x' });
  });

  test('is refused when it is too long or names no possible session', () => {
    for (const meta of [
      `a=${'x'.repeat(1023)}`,
      ...['session=a/b/0', 'epoch=1', 'session= epoch=1', 'session=a/b epoch=1', 'session=a/b/0 epoch=-1'],
      ...['session=a/b/0 epoch=1e3', 'session=a/b/0 epoch=9999999999999999', `session=${'a'.repeat(129)}/b/0 epoch=1`],
    ]) {
      assert.throws(() => takeEndpoint(meta), { code: 'invalid_frame' }, meta);
    }
  });
});
