import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { Counter, Histogram, Registry } from 'prom-client';
import { CulvertError } from '../errors/codes.ts';
import { createMetricsRegistry, HotCounter, HotHistogram, topN } from './metrics.ts';
import { startMetricsServer } from './metrics-server.ts';

const LABELS = [
  { method: 'GET', status: '2xx' },
  { method: 'PUT', status: '5"x\n\\' },
] as const;

describe('a hot counter', () => {
  test('is written exactly as a counter of prom-client', async () => {
    const [hot, plain] = [new Registry(), new Registry()];
    const options = { name: 'requests_total', help: 'Requests.', labelNames: ['method', 'status'] as const };
    const counter = new HotCounter(hot, { ...options, series: LABELS });
    const reference = new Counter({ ...options, registers: [plain] });
    for (const [series, by] of [
      [0, 1],
      [0, 1],
      [1, 2.5],
      [1, 0],
    ] as const) {
      // biome-ignore format: a table
      counter.inc(series, by);
      reference.inc(LABELS[series], by);
    }
    assert.equal(await hot.metrics(), await plain.metrics());
    assert.equal(await hot.metrics(), await plain.metrics());
    assert.match(await hot.metrics(), /requests_total\{method="GET",status="2xx"\} 2\n/);
    assert.deepEqual([counter.value(0), counter.value(1)], [2, 2.5]);
  });

  test('may have no labels, and starts at 0', async () => {
    const registry = new Registry();
    const counter = new HotCounter(registry, { name: 'c_total', help: 'C.' });
    assert.match(await registry.metrics(), /^c_total 0$/m);
    counter.inc();
    counter.inc(7);
    assert.match(await registry.metrics(), /^c_total 1$/m);
  });
});

describe('a hot histogram', () => {
  test('is written exactly as a histogram of prom-client', async () => {
    const [hot, plain] = [new Registry(), new Registry()];
    const options = {
      name: 'd_seconds',
      help: 'D.',
      labelNames: ['method', 'status'] as const,
      buckets: [0.01, 0.1, 1],
    };
    const histogram = new HotHistogram(hot, { ...options, series: LABELS });
    const reference = new Histogram({ ...options, buckets: [...options.buckets], registers: [plain] });
    for (const labels of LABELS) reference.zero(labels);
    for (const value of [0, 0.005, 0.01, 0.0100001, 0.1, 0.5, 1, 1.5, 1e9]) {
      histogram.observe(0, value);
      reference.observe(LABELS[0], value);
    }
    histogram.observe(1, 0.05);
    reference.observe(LABELS[1], 0.05);
    assert.equal(await hot.metrics(), await plain.metrics());
    assert.match(await hot.metrics(), /d_seconds_bucket\{le="0.01",method="GET",status="2xx"\} 3\n/);
    const values = (await hot.getMetricsAsJSON()).map((metric) => metric.values.length);
    assert.deepEqual(values, [12]);
  });

  test('ignores values that would spoil its sum, and series that do not exist', async () => {
    const registry = new Registry();
    const histogram = new HotHistogram(registry, { name: 'd_seconds', help: 'D.', buckets: [1] });
    const before = await registry.metrics();
    histogram.observe(0, Number.NaN);
    histogram.observe(0, -1);
    histogram.observe(3, 1);
    histogram.observe(-1, 1);
    assert.equal(await registry.metrics(), before);
    histogram.observe(0, 2);
    assert.match(await registry.metrics(), /le="1"\} 0\n.*le="\+Inf"\} 1\nd_seconds_sum 2\nd_seconds_count 1/);
  });
});

describe('the largest N', () => {
  test('come first, and all others are one entry', () => {
    const entries = [['a', 1], ['b', 5], ['c', 3], ['d', 5], ['e', 2]] as const; // biome-ignore format: a table
    assert.deepEqual(topN(entries, 3), [['b', 5], ['d', 5], ['c', 3], ['other', 3]]); // biome-ignore format: a table
    assert.deepEqual(topN(entries, 5).length, 5);
    assert.deepEqual(topN(entries, 0), [['other', 16]]);
    assert.deepEqual(topN([], 3), []);
    assert.deepEqual(topN(new Map([['x', 0]]), 3), [['x', 0]]);
  });

  test('keep the sum, whatever the order, and never use one label twice', () => {
    const entries = Array.from({ length: 500 }, (_, i): [string, number] => [
      i === 77 ? 'other' : `a${i}`,
      (i * 7919) % 101,
    ]);
    const sum = entries.reduce((total, [, value]) => total + value, 0);
    for (const order of [entries, entries.toReversed()]) {
      const top = topN(order, 10);
      assert.equal(top.length, 11);
      assert.equal(new Set(top.map(([label]) => label)).size, 11);
      assert.equal(
        top.reduce((total, [, value]) => total + value, 0),
        sum,
      );
      assert.deepEqual(top, topN(entries, 10));
      assert.deepEqual(top.slice(0, 10), entries.filter(([label]) => label !== 'other').toSorted((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 10)); // biome-ignore format: one expectation
    }
  });
});

describe('the metrics server', () => {
  async function started(t: TestContext, registry = createMetricsRegistry()) {
    const server = await startMetricsServer({ host: '127.0.0.1', port: 0 }, registry);
    t.after(() => server.close());
    return { server, registry, url: `http://127.0.0.1:${server.port}` };
  }

  test('serves the metrics of the process and of the node', async (t) => {
    const { registry, url } = await started(t);
    new HotCounter(registry, { name: 'tunnel_requests_total', help: 'Requests.' }).inc();
    const response = await fetch(`${url}/metrics?x=1`);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
    const text = await response.text();
    for (const name of ['tunnel_requests_total 1', 'process_cpu_seconds_total ', 'nodejs_eventloop_lag_p99_seconds ']) {
      assert.ok(text.includes(`\n${name}`), name);
    }
    assert.equal(await (await fetch(`${url}/health/live`)).text(), 'ok\n');
  });

  test('answers nothing else', async (t) => {
    const { url } = await started(t);
    for (const path of ['/', '/metrics/', '/health', '/health/ready', '//metrics']) {
      assert.equal((await fetch(url + path)).status, 404, path);
    }
    assert.equal((await fetch(`${url}/metrics`, { method: 'POST', body: 'x' })).status, 404);
  });

  test('says whether its process is ready, where it is told', async (t) => {
    let ready = false;
    const server = await startMetricsServer({ host: '127.0.0.1', port: 0 }, new Registry(), () => ready);
    t.after(() => server.close());
    const url = `http://127.0.0.1:${server.port}/health/ready`;
    assert.equal((await fetch(url)).status, 503);
    ready = true;
    assert.equal((await fetch(url)).status, 200);
  });

  test('keeps the metrics of two nodes in one process apart', async (t) => {
    const [one, two] = [await started(t), await started(t)];
    new HotCounter(one.registry, { name: 'only_one_total', help: 'O.' });
    assert.match(await (await fetch(`${one.url}/metrics`)).text(), /only_one_total/);
    const other = await (await fetch(`${two.url}/metrics`)).text();
    assert.doesNotMatch(other, /only_one_total/);
    assert.match(other, /process_cpu_seconds_total/);
  });

  test('says 500 when collecting fails, and goes on', async (t) => {
    const registry = new Registry();
    let broken = true;
    new Counter({
      name: 'c_total',
      help: 'C.',
      registers: [registry],
      collect() {
        if (broken) throw new Error('broken');
      },
    });
    const { url } = await started(t, registry);
    assert.equal((await fetch(`${url}/metrics`)).status, 500);
    broken = false;
    assert.equal((await fetch(`${url}/metrics`)).status, 200);
  });

  test('closes although a scrape is under way', { timeout: 5000 }, async () => {
    const registry = new Registry();
    const scraping = Promise.withResolvers<void>();
    new Counter({
      name: 'c_total',
      help: 'C.',
      registers: [registry],
      collect() {
        scraping.resolve();
        return new Promise(() => {});
      },
    });
    const server = await startMetricsServer({ host: '127.0.0.1', port: 0 }, registry);
    const answer = fetch(`http://127.0.0.1:${server.port}/metrics`);
    await scraping.promise;
    await Promise.all([server.close(), assert.rejects(answer)]);
  });

  test('says which address it cannot use', async (t) => {
    const { server } = await started(t);
    const again = startMetricsServer({ host: '127.0.0.1', port: server.port }, new Registry());
    await assert.rejects(again, (error) => {
      assert.ok(error instanceof CulvertError);
      assert.equal(error.code, 'invalid_config');
      assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${server.port}`));
      return true;
    });
  });
});
