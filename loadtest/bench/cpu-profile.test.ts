import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseProfile, summarise } from './cpu-profile.ts';

const frame = (functionName: string, url: string) => ({ functionName, url });

/** main calls parse, which calls itself; 1000 µs lie between samples, from 10 000 on. */
function profile(samples: readonly number[]): string {
  return JSON.stringify({
    nodes: [
      { id: 1, callFrame: frame('(root)', ''), children: [2, 5] },
      { id: 2, callFrame: frame('main', 'file:///repo/services/a.ts?namespace=1'), children: [3] },
      { id: 3, callFrame: frame('parse', 'file:///repo/shared/b.ts'), children: [4] },
      { id: 4, callFrame: frame('parse', 'file:///repo/shared/b.ts') },
      { id: 5, callFrame: frame('(idle)', '') },
    ],
    startTime: 9000,
    endTime: 100_000,
    samples,
    timeDeltas: samples.map(() => 1000),
  });
}

const ALL = { from: 0, to: Number.MAX_SAFE_INTEGER };
const summary = (samples: readonly number[], period = ALL) =>
  summarise(parseProfile(profile(samples)), period, '/repo');

describe('CPU profile', () => {
  test('functions are listed by self time, with paths from the checkout', () => {
    const [first, second] = summary([4, 3, 4, 2, 2]).spots;
    assert.deepEqual(first, { functionName: 'parse', file: 'shared/b.ts', self: 0.75, total: 0.75 });
    assert.deepEqual(second, { functionName: 'main', file: 'services/a.ts', self: 0.25, total: 1 });
  });

  test('a recursive function counts once in its total', () => {
    assert.equal(summary([4, 4, 4]).spots.find(({ functionName }) => functionName === 'parse')?.total, 1);
  });

  test('idle time is no part of the shares', () => {
    const { busy, spots } = summary([5, 5, 5, 2, 2]);
    assert.equal(busy, 0.25);
    assert.equal(spots.find(({ functionName }) => functionName === 'main')?.self, 1);
  });

  test('samples outside the period do not count', () => {
    // Samples are taken at 10 000, 11 000, 12 000 and so on.
    const { spots } = summary([2, 2, 3, 3, 2, 2], { from: 11_500, to: 13_500 });
    assert.equal(spots.find(({ functionName }) => functionName === 'parse')?.self, 1);
  });

  test('what is no profile is refused', () => {
    assert.throws(() => parseProfile('{"nodes": 1}'), { name: 'ZodError' });
  });
});
