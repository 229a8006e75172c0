import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseTransfer } from './curl.ts';

describe('curl output', () => {
  test('size and time of a complete transfer are read', () => {
    assert.deepEqual(parseTransfer('200 1000000000 1.250000\n'), { bytes: 1_000_000_000, seconds: 1.25 });
  });

  for (const text of ['502 120 0.01', '000 0 0.000000', '200 5', '']) {
    test(`"${text}" is a failed transfer`, () => {
      assert.throws(() => parseTransfer(text), { code: 'internal_error' });
    });
  }
});
