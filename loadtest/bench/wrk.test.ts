import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CulvertError } from '../../shared/errors/codes.ts';
import { parseWrk } from './wrk.ts';

const OUTPUT = `Running 4s test @ http://127.0.0.1:33011/1k.bin
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     5.21ms    3.90ms  61.12ms   88.12%
    Req/Sec    12.33k     1.19k   14.01k    75.00%
  Latency Distribution
     50%  500.00us
     75%    5.35ms
     90%    7.94ms
     99%    1.02s
  49188 requests in 4.01s, 62.49MB read
Requests/sec:  12270.84
Transfer/sec:     15.59MB
`;

describe('wrk output', () => {
  test('rate, count and latencies are read, with every unit as milliseconds', () => {
    assert.deepEqual(parseWrk(OUTPUT), {
      requests: 49188,
      requestsPerSecond: 12270.84,
      p50: 0.5,
      p99: 1020,
      errors: 0,
    });
  });

  test('socket errors, timeouts and bad statuses all count as errors', () => {
    const problems = '  Socket errors: connect 1, read 2, write 30, timeout 400\n  Non-2xx or 3xx responses: 5000\n';
    assert.equal(parseWrk(OUTPUT.replace('Requests/sec', `${problems}Requests/sec`)).errors, 5433);
  });

  for (const missing of ['Requests/sec', '99%', '500.00us', 'requests in']) {
    test(`output without "${missing}" is refused`, () => {
      const refused = (error: unknown) => error instanceof CulvertError && error.code === 'internal_error';
      assert.throws(() => parseWrk(OUTPUT.replace(missing, '?')), refused);
    });
  }
});
