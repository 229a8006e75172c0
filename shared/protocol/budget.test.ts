import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ByteBudget } from './budget.ts';

const CHILD_LIMIT = 1000;
const PARENT_LIMIT = 1500;

const step = fc.record({
  child: fc.constantFrom(0, 1),
  action: fc.constantFrom('hold', 'free', 'promise', 'release'),
  bytes: fc.integer({ min: 1, max: 700 }),
});

/** What each child should say of itself, kept by hand. */
interface Account {
  used: number;
  promised: number[];
}

describe('a byte budget', () => {
  test('counts in its parent too, promises at most half, and is empty when all is given back', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const parent = new ByteBudget(PARENT_LIMIT);
        const children = [new ByteBudget(CHILD_LIMIT, parent), new ByteBudget(CHILD_LIMIT, parent)];
        const accounts: Account[] = children.map(() => ({ used: 0, promised: [] }));
        for (const { child, action, bytes } of steps) {
          const budget = children[child];
          const account = accounts[child];
          if (budget === undefined || account === undefined) continue;
          if (action === 'hold') {
            account.used += bytes;
            const total = accounts.reduce((sum, each) => sum + each.used, 0);
            assert.equal(budget.hold(bytes), account.used <= CHILD_LIMIT && total <= PARENT_LIMIT);
          } else if (action === 'free') {
            const freed = Math.min(bytes, account.used);
            account.used -= freed;
            budget.free(freed);
          } else if (action === 'promise') {
            const fits = promised(account) + bytes <= CHILD_LIMIT / 2 && total(accounts) + bytes <= PARENT_LIMIT / 2;
            assert.equal(budget.promise(bytes), fits);
            if (fits) account.promised.push(bytes);
          } else {
            budget.release(account.promised.pop() ?? 0);
          }
          check(parent, children, accounts);
        }
        accounts.forEach((account, i) => {
          children[i]?.free(account.used);
          children[i]?.release(promised(account));
        });
        for (const budget of [parent, ...children]) assert.deepEqual([budget.used, budget.promised], [0, 0]);
      }),
      { numRuns: 500 },
    );
  });

  test('holds up to its limit and not a byte more', () => {
    const budget = new ByteBudget(100);
    assert.equal(budget.hold(100), true);
    assert.equal(budget.isOver, false);
    assert.equal(budget.hold(1), false);
    assert.equal(budget.isOver, true);
    budget.free(1);
    assert.equal(budget.isOver, false);
  });

  test('that is refused by its parent promises nothing itself', () => {
    const parent = new ByteBudget(100);
    const child = new ByteBudget(1000, parent);
    assert.equal(child.promise(51), false);
    assert.deepEqual([child.promised, parent.promised], [0, 0]);
    assert.equal(child.promise(50), true);
  });
});

function check(parent: ByteBudget, children: readonly ByteBudget[], accounts: readonly Account[]): void {
  children.forEach((budget, i) => {
    const account = accounts[i];
    assert.ok(account !== undefined);
    assert.deepEqual([budget.used, budget.promised], [account.used, promised(account)]);
    assert.ok(budget.promised <= CHILD_LIMIT / 2);
    assert.equal(budget.isOver, budget.used > CHILD_LIMIT || parent.used > PARENT_LIMIT);
  });
  assert.equal(
    parent.used,
    accounts.reduce((sum, each) => sum + each.used, 0),
  );
  assert.equal(parent.promised, total(accounts));
  assert.ok(parent.promised <= PARENT_LIMIT / 2);
}

function promised(account: Account): number {
  return account.promised.reduce((sum, bytes) => sum + bytes, 0);
}

function total(accounts: readonly Account[]): number {
  return accounts.reduce((sum, each) => sum + promised(each), 0);
}
