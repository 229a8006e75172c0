import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { median, ratios, spread } from './statistics.ts';

describe('statistics', () => {
  test('the median of an odd number of values is the middle one, whatever their order', () => {
    assert.equal(median([100, 9, 20]), 20);
  });

  test('the median of an even number of values is the mean of the two in the middle', () => {
    assert.equal(median([4, 1, 3, 1000]), 3.5);
  });

  test('no values have no median', () => {
    assert.throws(() => median([]), RangeError);
  });

  test('the spread of values is their median, smallest and largest', () => {
    assert.deepEqual(spread([5, 1, 3]), { median: 3, min: 1, max: 5 });
  });

  test('ratios pair the values of the same round, so that a slow round does not change them', () => {
    assert.deepEqual(ratios([20, 2], [100, 10]), [0.2, 0.2]);
  });

  test('values without a partner are refused', () => {
    assert.throws(() => ratios([1, 2], [1]), RangeError);
  });
});
