import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { burstOf, LIMIT_NAMES, Limits, strictest, WrittenLimits } from './limits.ts';

describe('limits', () => {
  test('are all optional, and what is not known is left out', () => {
    assert.deepEqual(Limits.parse({}), {});
    assert.deepEqual(Limits.parse({ tunnels: 3, fromTheFuture: 1 }), { tunnels: 3 });
  });

  test('of several sources are the strictest of each', () => {
    const one = { connections: 10, requestsPerSecond: 100, bandwidthIn: 4096 };
    const two = { connections: 20, requestsPerSecond: 0.5, tunnels: 0 };
    const expected = { connections: 10, requestsPerSecond: 0.5, bandwidthIn: 4096, tunnels: 0 };
    assert.deepEqual(strictest(one, undefined, two), expected);
    assert.deepEqual(strictest(two, one), expected);
    assert.deepEqual(strictest(), {});
  });

  test('take every one of their names into account', () => {
    for (const name of LIMIT_NAMES) {
      assert.deepEqual(strictest({ [name]: 5000 }, { [name]: 4000 }), { [name]: 4000 });
    }
  });

  test('allow a burst of one second, and of one request at least, where they name none', () => {
    assert.equal(burstOf({}), undefined);
    assert.equal(burstOf({ burst: 5 }), undefined);
    assert.equal(burstOf({ requestsPerSecond: 100 }), 100);
    assert.equal(burstOf({ requestsPerSecond: 0.1 }), 1);
    assert.equal(burstOf({ requestsPerSecond: 100, burst: 7 }), 7);
  });

  test('may be written with units', () => {
    assert.deepEqual(
      WrittenLimits.parse({ bandwidthIn: '10MB/s', bandwidthOut: '64KiB', bodyBytes: 5, bytesPerMonth: '1.5GB' }),
      { bandwidthIn: 10_000_000, bandwidthOut: 65_536, bodyBytes: 5, bytesPerMonth: 1_500_000_000 },
    );
  });

  for (const wrong of [
    { bandwidthIn: 'fast' },
    { bandwidthIn: '10' },
    { bodyBytes: '1MB/s' },
    { bodyBytes: 0 },
    { bytesPerMonth: 2 ** 60 },
    { requestsPerSecond: 0 },
    { requestsPerSecond: '5' },
    { requestsPerSecond: Number.NaN },
    { burst: 0.5 },
    { connections: -1 },
    { streamsPerAgent: 0 },
    { tunnel: 3 },
  ]) {
    test(`refuse ${JSON.stringify(wrong)}`, () => {
      assert.equal(WrittenLimits.safeParse(wrong).success, false);
    });
  }
});
