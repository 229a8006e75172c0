import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { quantile } from './quantile.ts';

const BOUNDS = [1, 2, 4];

describe('a quantile of a histogram', () => {
  test('lies in the bucket that holds it, spread evenly', () => {
    const counts = Float64Array.of(10, 10, 20, 0);
    assert.equal(quantile(BOUNDS, counts, 0.25), 1);
    assert.equal(quantile(BOUNDS, counts, 0.5), 2);
    assert.equal(quantile(BOUNDS, counts, 0.75), 3);
    assert.equal(quantile(BOUNDS, counts, 1), 4);
  });

  test('above all bounds is the highest one', () => {
    assert.equal(quantile(BOUNDS, Float64Array.of(1, 0, 0, 9), 0.99), 4);
  });

  test('skips empty buckets', () => {
    assert.equal(quantile(BOUNDS, Float64Array.of(0, 0, 8, 0), 0), 2);
    assert.equal(quantile(BOUNDS, Float64Array.of(0, 0, 8, 0), 0.5), 3);
  });

  test('of nothing is 0', () => {
    assert.equal(quantile(BOUNDS, Float64Array.of(0, 0, 0, 0), 0.5), 0);
  });
});
