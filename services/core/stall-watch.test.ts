import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { StallWatch } from './stall-watch.ts';

describe('the watch for a process that stood still', () => {
  /** Time that passes without this process doing anything, and time in which it lives. */
  function setUp(t: TestContext, isRecovered: () => boolean) {
    let now = 1000;
    t.mock.method(performance, 'now', () => now);
    t.mock.timers.enable({ apis: ['setInterval'] });
    const watch = new StallWatch(isRecovered);
    t.after(() => watch.close());
    return {
      watch,
      standStill: (time: number) => {
        now += time;
      },
      live: (time: number) => {
        for (let left = time; left > 0; left -= 100) {
          now += 100;
          t.mock.timers.tick(100);
        }
      },
    };
  }

  test('says nothing while the process lives', (t) => {
    const { watch, live } = setUp(t, () => false);
    live(60_000);
    assert.equal(watch.isRecovering, false);
  });

  test('knows of a stall before any timer has run, and until all is there again', (t) => {
    let recovered = false;
    const { watch, live, standStill } = setUp(t, () => recovered);
    standStill(3000);
    assert.equal(watch.isRecovering, true);
    live(2000);
    assert.equal(watch.isRecovering, true);
    recovered = true;
    assert.equal(watch.isRecovering, false);
  });

  test('does not believe at once that all is there', (t) => {
    const quick = setUp(t, () => true);
    quick.standStill(3000);
    assert.equal(quick.watch.isRecovering, true);
    quick.live(1100);
    assert.equal(quick.watch.isRecovering, false);
  });

  test('does not wait for ever', (t) => {
    const { watch, live, standStill } = setUp(t, () => false);
    standStill(3000);
    assert.equal(watch.isRecovering, true);
    live(10_100);
    assert.equal(watch.isRecovering, false);
  });
});
