import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { until } from '../testkit/eventually.ts';
import { type Draw, monthOf, type QuotaStore, type Usage } from './quota-store.ts';

export interface QuotaStoreFixture {
  /** Two nodes' views of one store. */
  readonly a: QuotaStore;
  readonly b: QuotaStore;
  /** What the store keeps for all accounts: keys or entries. */
  size(): Promise<number>;
  close(): Promise<void>;
}

const MONTH = monthOf(Date.UTC(2026, 0, 15));

/** A bucket that fills so slowly that it does not matter during a test. */
function draw(fields: Partial<Draw>): Draw {
  return { bucket: 'requests', rate: 0.001, burst: 100, used: 0, want: 0, need: 0, ...fields };
}

function usage(requests: number, bytesIn = 0, bytesOut = 0): Usage {
  return { requests, bytesIn, bytesOut };
}

/** The suite that every implementation of `QuotaStore` passes. `factory` makes an empty store for each test. */
export function quotaStoreContract(name: string, factory: () => Promise<QuotaStoreFixture>): void {
  describe(`${name}: quota store contract`, () => {
    let store: QuotaStoreFixture;
    beforeEach(async () => {
      store = await factory();
    });
    afterEach(() => store.close());

    async function granted(from: QuotaStore, fields: Partial<Draw>, account = 'acme'): Promise<number> {
      return (await from.draw(account, [draw(fields)]))[0]?.granted ?? Number.NaN;
    }

    async function level(account = 'acme'): Promise<number> {
      return (await store.a.draw(account, [draw({})]))[0]?.level ?? Number.NaN;
    }

    function near(actual: number, expected: number): void {
      assert.ok(Math.abs(actual - expected) < 0.5, `${actual} is not about ${expected}`);
    }

    test('a bucket that nobody drew on is full, and gives what is needed until it is empty, whoever asks', async () => {
      assert.equal(await granted(store.a, { want: 60, need: 60 }), 60);
      assert.equal(await granted(store.b, { want: 60, need: 60 }), 40);
      assert.equal(await granted(store.a, { want: 60, need: 60 }), 0);
    });

    test('gives a quarter of what is left for what is only wanted', async () => {
      assert.equal(await granted(store.a, { want: 90, need: 0 }), 25);
      assert.equal(await granted(store.b, { want: 90, need: 30 }), 30);
      assert.equal(await granted(store.a, { want: 5, need: 0 }), 5);
    });

    test('fills at its rate and not above its burst', async () => {
      const fields = { rate: 1000, burst: 100, want: 100, need: 100 };
      assert.equal(await granted(store.a, fields), 100);
      const started = performance.now();
      let sum = 0;
      await until('500 units came', async () => {
        sum += await granted(store.b, fields);
        return sum >= 500;
      });
      const elapsed = performance.now() - started;
      // What the pauses between two draws lost to the burst makes it slower, never faster.
      assert.ok(elapsed >= 490, `500 units at 1000 a second came in ${elapsed} ms`);
      await until(
        'it is full again',
        async () => (await store.a.draw('acme', [draw({ ...fields, want: 0, need: 0 })]))[0]?.level === 100,
      );
    });

    test('takes what was used without having been drawn, into debt if need be', async () => {
      assert.equal(await granted(store.a, { used: 130 }), 0);
      near(await level(), -30);
      assert.equal(await granted(store.a, { want: 1, need: 1 }), 0);
    });

    test('takes back what was not needed, and is never more than full', async () => {
      assert.equal(await granted(store.a, { want: 50, need: 50 }), 50);
      await granted(store.a, { used: -20 });
      near(await level(), 70);
      await granted(store.a, { used: -500 });
      near(await level(), 100);
    });

    test('keeps nothing of a full bucket', async () => {
      await granted(store.a, { used: -500 });
      await granted(store.a, {});
      assert.equal(await store.size(), 0);
    });

    test('follows a changed burst and rate at the next draw', async () => {
      await granted(store.a, { want: 10, need: 10 });
      assert.equal(await granted(store.a, { burst: 5, want: 90, need: 90 }), 5);
      assert.equal(await granted(store.a, { burst: 1000, want: 90, need: 90 }), 0);
    });

    test('draws on several buckets of an account in one step, each apart from the others', async () => {
      const results = await store.a.draw('acme', [
        draw({ want: 10, need: 10 }),
        draw({ bucket: 'in', burst: 5e12, want: 4e12, need: 4e12 }),
        draw({ bucket: 'out', burst: 3, want: 10, need: 10 }),
      ]);
      assert.deepEqual(
        results.map((each) => each.granted),
        [10, 4e12, 3],
      );
      near(await level('other'), 100);
      near(await level('acme}:bucket:requests'), 100);
    });

    test('gives nothing twice to nodes that draw at the same time', async () => {
      const draws = Array.from({ length: 50 }, (_, i) =>
        granted(i % 2 === 0 ? store.a : store.b, { want: 7, need: 7 }),
      );
      const sum = (await Promise.all(draws)).reduce((total, each) => total + each, 0);
      assert.equal(sum, 100);
    });

    const hold = (of: QuotaStore, holder: string, inUse: number, want: number, ttl = 60_000): Promise<number> =>
      of.hold('acme', { permit: 'agent', holder, limit: 10, inUse, want, ttl });

    test('lets holders have no more permits together than there are', async () => {
      assert.equal(await hold(store.a, 'one', 0, 6), 6);
      assert.equal(await hold(store.b, 'two', 0, 6), 4);
      assert.equal(await hold(store.a, 'one', 2, 3), 3);
      assert.equal(await hold(store.b, 'two', 4, 9), 7);
    });

    test('counts what is in use even above the limit', async () => {
      assert.equal(await hold(store.a, 'one', 12, 14), 12);
      assert.equal(await hold(store.b, 'two', 0, 1), 0);
      assert.equal(await hold(store.b, 'two', 3, 4), 3);
    });

    test('forgets permits that were given up or have lapsed', async () => {
      assert.equal(await hold(store.a, 'one', 0, 10), 10);
      assert.equal(await hold(store.a, 'one', 0, 0), 0);
      assert.equal(await store.size(), 0);
      assert.equal(await hold(store.a, 'one', 0, 10, 50), 10);
      await until('they have lapsed', async () => (await hold(store.b, 'two', 0, 10)) === 10);
    });

    const add = (of: QuotaStore, sequence: number, delta: Usage, known = usage(0), source = 'one'): Promise<Usage> =>
      of.addUsage('acme', { month: MONTH, source, sequence, delta, known });

    test('adds up what all nodes say was used', async () => {
      assert.deepEqual(await add(store.a, 1, usage(1, 10, 100)), usage(1, 10, 100));
      assert.deepEqual(await add(store.b, 1, usage(2, 5, 5e12), usage(0), 'two'), usage(3, 15, 5e12 + 100));
      assert.deepEqual(await store.a.usage('acme', MONTH), usage(3, 15, 5e12 + 100));
    });

    test('counts an addition that is sent again once', async () => {
      await add(store.a, 1, usage(1));
      assert.deepEqual(await add(store.a, 1, usage(1)), usage(1));
      assert.deepEqual(await add(store.a, 2, usage(1)), usage(2));
      assert.deepEqual(await add(store.a, 1, usage(1)), usage(2));
    });

    test('starts again from the most that a node knows of, when less is there', async () => {
      assert.deepEqual(await add(store.a, 7, usage(1, 1, 1), usage(100, 0, 50)), usage(101, 1, 51));
      assert.deepEqual(await add(store.b, 3, usage(1), usage(90, 0, 20), 'two'), usage(102, 1, 51));
    });

    test('keeps months and accounts apart, and nothing was used where nothing was said', async () => {
      await add(store.a, 1, usage(5));
      assert.deepEqual(await store.b.usage('acme', monthOf(Date.UTC(2026, 1, 1))), usage(0));
      assert.deepEqual(await store.b.usage('other', MONTH), usage(0));
    });
  });
}
