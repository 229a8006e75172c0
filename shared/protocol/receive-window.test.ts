import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { ByteBudget } from './budget.ts';
import { INITIAL_WINDOW, MAX_WINDOW } from './frame.ts';
import { ReceiveWindow } from './receive-window.ts';

const MIB = 1024 * 1024;

/** One sender and one reader; what a stream does with its window. */
class Transfer {
  readonly window: ReceiveWindow;
  readonly #budget: ByteBudget;
  /** As the sender counts it. */
  credit = INITIAL_WINDOW;
  /** Consumed and not given back. */
  owed = 0;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
    this.window = new ReceiveWindow(budget);
  }

  receive(bytes: number): void {
    const allowed = bytes <= this.credit;
    const held = this.window.held;
    assert.equal(this.window.receive(bytes), allowed);
    assert.equal(this.window.held, allowed ? held + bytes : held);
    if (!allowed) return;
    this.credit -= bytes;
    this.#budget.hold(bytes);
  }

  consume(bytes: number, now: number, roundTrip: number): number {
    const { held, size } = this.window;
    const grant = this.window.consume(bytes, now, roundTrip);
    this.owed += Math.min(bytes, held);
    const growth = this.window.size - size;
    assert.ok(growth === 0 || growth === size, 'a window doubles or stays');
    if (grant > 0) {
      assert.ok(this.owed >= size / 2, 'a grant came before half of the window was passed on');
      assert.equal(grant, this.owed + growth);
      this.owed = 0;
    } else {
      assert.ok(this.owed < size / 2 && growth === 0, 'half of the window was passed on and nothing was granted');
    }
    this.credit += grant;
    return grant;
  }

  check(): void {
    assert.ok(this.credit >= 0 && this.window.held >= 0);
    assert.equal(this.credit + this.window.held + this.owed, this.window.size, 'credit was lost or made');
    assert.ok(this.window.size >= INITIAL_WINDOW && this.window.size <= MAX_WINDOW);
  }
}

const step = fc.record({
  stream: fc.nat({ max: 2 }),
  bytes: fc.oneof(fc.nat({ max: 1000 }), fc.nat({ max: 400_000 }), fc.nat({ max: 3 * MIB })),
  receive: fc.boolean(),
  /** Bytes beyond the credit. */
  beyond: fc.constantFrom(0, 0, 0, 1),
  elapsed: fc.constantFrom(0, 1, 5, 50, 1000),
});

describe('a receive window', () => {
  test('never loses or makes credit, promises at most half of its budgets and returns everything', () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 150 }),
        fc.integer({ min: MIB, max: 80 * MIB }),
        fc.constantFrom(0.05, 1, 30, 200),
        (steps, limit, roundTrip) => {
          const process = new ByteBudget(limit);
          const session = new ByteBudget(64 * MIB, process);
          const transfers = [0, 1, 2].map(() => new Transfer(session));
          let now = 1_000_000;
          for (const { stream, bytes, receive, beyond, elapsed } of steps) {
            const transfer = transfers[stream];
            assert.ok(transfer !== undefined);
            now += elapsed;
            if (receive) transfer.receive(Math.min(bytes, transfer.credit) + beyond);
            else transfer.consume(bytes, now, roundTrip);
            transfer.check();
            checkBudgets(process, session, transfers);
          }
          for (const { window } of transfers) {
            window.dispose();
            window.dispose();
          }
          for (const budget of [process, session]) assert.deepEqual([budget.used, budget.promised], [0, 0]);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('grows to its maximum for a reader that is held back by it, and no further', () => {
    const budget = new ByteBudget(64 * MIB);
    const transfer = new Transfer(budget);
    for (let now = 1000; now < 1200; now += 1) {
      transfer.receive(transfer.credit);
      transfer.consume(transfer.window.held, now, 10);
      transfer.check();
    }
    assert.equal(transfer.window.size, MAX_WINDOW);
    assert.equal(budget.promised, MAX_WINDOW - INITIAL_WINDOW);
  });

  test('stays as it is for a reader that takes longer than two round trips', () => {
    const transfer = new Transfer(new ByteBudget(64 * MIB));
    for (let now = 1000; now < 3000; now += 20) {
      transfer.receive(INITIAL_WINDOW / 2);
      assert.equal(transfer.consume(INITIAL_WINDOW / 2, now, 10), INITIAL_WINDOW / 2);
    }
    assert.equal(transfer.window.size, INITIAL_WINDOW);
  });

  test('stays as it is when the budget has no room to promise', () => {
    const budget = new ByteBudget(2 * INITIAL_WINDOW);
    const first = new Transfer(budget);
    const second = new Transfer(budget);
    for (let now = 1000; now < 1050; now += 1) {
      for (const transfer of [first, second]) {
        transfer.receive(transfer.credit);
        transfer.consume(transfer.window.held, now, 10);
      }
    }
    assert.deepEqual([first.window.size, second.window.size], [2 * INITIAL_WINDOW, INITIAL_WINDOW]);
  });

  test('takes no byte beyond the credit, and counts none of a frame that it refused', () => {
    const window = new ReceiveWindow(new ByteBudget(MIB));
    assert.equal(window.receive(INITIAL_WINDOW), true);
    assert.equal(window.receive(1), false);
    assert.equal(window.held, INITIAL_WINDOW);
  });
});

function checkBudgets(process: ByteBudget, session: ByteBudget, transfers: readonly Transfer[]): void {
  const held = transfers.reduce((sum, { window }) => sum + window.held, 0);
  const grown = transfers.reduce((sum, { window }) => sum + window.size - INITIAL_WINDOW, 0);
  for (const budget of [process, session]) {
    assert.deepEqual([budget.used, budget.promised], [held, grown]);
    assert.ok(budget.promised <= budget.limit / 2);
  }
}
