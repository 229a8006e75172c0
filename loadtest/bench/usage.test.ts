import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseCpu, parsePeakRss, readUsage } from './usage.ts';

describe('process usage', () => {
  test('CPU time is found behind a name with spaces and parentheses', () => {
    const stat = '42 (a) R (b) S 1 42 42 0 -1 4194304 103 0 0 0 250 150 7 8 20 0 11 0 480329 2998272 417';
    assert.equal(parseCpu(stat), 4);
  });

  test('peak memory is read in bytes', () => {
    assert.equal(parsePeakRss('VmPeak:\t  900 kB\nVmHWM:\t    300 kB\nVmRSS:\t 200 kB\n'), 300 * 1024);
  });

  test('text without the numbers is refused', () => {
    assert.throws(() => parseCpu('42 (node) S 1'), { code: 'internal_error' });
    assert.throws(() => parsePeakRss('VmRSS:\t 200 kB\n'), { code: 'internal_error' });
  });

  test('the usage of this process agrees with what Node says of it', () => {
    const { user, system } = process.cpuUsage();
    const usage = readUsage(process.pid);
    // Ticks are of 10 ms, one each for user and system time.
    assert.ok(Math.abs(usage.cpuSeconds - (user + system) / 1e6) < 0.1, `${usage.cpuSeconds} s`);
    assert.ok(usage.peakRssBytes >= process.memoryUsage.rss() * 0.8, `${usage.peakRssBytes} bytes`);
  });

  test('a process that is gone is an error', () => {
    // Above the largest pid_max that Linux allows.
    assert.throws(() => readUsage(2 ** 22 + 1), { code: 'internal_error' });
  });
});
