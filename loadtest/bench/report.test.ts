import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Sample } from './measure.ts';
import { describeMachine, type Measured, makeReport } from './report.ts';
import { reportMarkdown, reportText, roundLine } from './report-text.ts';

const sample = (requestsPerSecond: number, megabytes: number, cpu?: number): Sample => ({
  requests: requestsPerSecond * 10,
  requestsPerSecond,
  p50: 1,
  p99: 5,
  errors: 0,
  requestsCpu: cpu === undefined ? {} : { core: cpu, agent: cpu / 2 },
  bytesPerSecond: megabytes * 1e6,
  transferCpu: cpu === undefined ? {} : { core: 2, agent: 1 },
});

const USAGE = { cpuSeconds: 30, peakRssBytes: 100 * 2 ** 20 };
const DIRECT: Measured = { name: 'direct', samples: [sample(60_000, 1000), sample(30_000, 1000), sample(50_000, 500)] };
const tunnel = (name: string, ...samples: Sample[]): Measured => ({
  name,
  samples,
  usage: { core: USAGE, agent: USAGE },
});
const OWN = tunnel('tunnel', sample(12_000, 200, 5), sample(9000, 300, 5), sample(10_000, 200, 5));
const OTHER = tunnel('against', sample(6000, 100, 9), sample(6000, 100, 9), sample(10_000, 200, 9));
const FACTS = { machine: describeMachine(), load: { rounds: 3, seconds: 10 }, workers: 1, built: true };

describe('report', () => {
  test('the share of direct is the median of the ratios of each round, not the ratio of medians', () => {
    const report = makeReport(FACTS, DIRECT, [OWN]);
    assert.deepEqual(report.targets[1]?.ofDirect?.requests, { median: 0.2, min: 0.2, max: 0.3 });
    assert.deepEqual(report.targets[1]?.ofDirect?.transfer, { median: 0.3, min: 0.2, max: 0.4 });
    assert.equal(report.targets[0]?.ofDirect, undefined);
  });

  test('the cost of a process is its CPU time for each request and each gigabyte', () => {
    const core = makeReport(FACTS, DIRECT, [OWN]).targets[1]?.processes?.core;
    assert.equal(core?.perRequest.median, 50);
    assert.equal(core?.perGigabyte.median, 2);
  });

  test('two checkouts are compared round by round', () => {
    assert.deepEqual(makeReport(FACTS, DIRECT, [OWN, OTHER]).ofAgainst?.requests, { median: 1.5, min: 1, max: 2 });
    assert.equal(makeReport(FACTS, DIRECT, [OWN]).ofAgainst, undefined);
  });

  test('the text has the share with its range, and the memory', () => {
    const text = reportText(makeReport(FACTS, DIRECT, [OWN]));
    assert.match(text, /share of direct, requests +100% +20\.0% \(20\.0%–30\.0%\)/);
    assert.match(text, /tunnel: core +50 \(42–56\).* 100$/m);
  });

  test('every row of a Markdown table has as many cells as its header', () => {
    const tables = reportMarkdown(makeReport(FACTS, DIRECT, [OWN, OTHER]))
      .split('\n\n')
      .slice(1);
    assert.equal(tables.length, 2);
    for (const table of tables) {
      const cells = table.split('\n').map((row) => row.split('|').length);
      assert.equal(new Set(cells).size, 1, table);
    }
  });

  test('the line of a round names errors when there are some', () => {
    const bad = { ...sample(10, 1), errors: 3 };
    assert.equal(roundLine(2, new Map([['tunnel', bad]])), 'round 2: tunnel 10/s 1 MB/s 3 errors');
  });
});
