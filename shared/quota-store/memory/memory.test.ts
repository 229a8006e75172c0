import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { quotaStoreContract } from '../quota-store.contract.ts';
import { monthOf, nextMonth } from '../quota-store.ts';
import { MemoryQuotaStore } from './memory-quota-store.ts';

quotaStoreContract('memory', async () => {
  const store = new MemoryQuotaStore();
  return { a: store, b: store, size: async () => store.size, close: async () => store.close() };
});

describe('the quota store in memory', () => {
  test('does not keep the buckets of accounts that went', async () => {
    let now = 0;
    const store = new MemoryQuotaStore(() => now);
    for (let i = 0; i < 20_000; i += 1) {
      now += 1;
      await store.draw(`account-${i}`, [{ bucket: 'requests', rate: 1000, burst: 100, used: 0, want: 50, need: 50 }]);
    }
    assert.ok(store.size < 3000, `${store.size} buckets`);
  });
});

describe('months', () => {
  test('are those of UTC, and the next one begins at its first moment', () => {
    const last = Date.UTC(2026, 11, 31, 23, 59, 59, 999);
    assert.equal(monthOf(last), '2026-12');
    assert.equal(nextMonth(last), last + 1);
    assert.equal(monthOf(last + 1), '2027-01');
    assert.equal(nextMonth(Date.UTC(2026, 1, 1)), Date.UTC(2026, 2, 1));
  });
});
