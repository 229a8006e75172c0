import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import { after, describe, test } from 'node:test';
import { type HealthCheckOptions, startHealthCheck } from './health.ts';
import { listen } from './test-support.ts';

const cleanups: (() => void)[] = [];
after(() => {
  for (const cleanup of cleanups) cleanup();
});

/** Starts a check and gives the changes one by one. */
function watch(options: Omit<HealthCheckOptions, 'tunnel' | 'onChange'>) {
  const seen: boolean[] = [];
  let wake = () => {};
  const check = startHealthCheck({
    tunnel: 'web',
    intervalMs: 5,
    timeoutMs: 200,
    ...options,
    onChange(healthy) {
      seen.push(healthy);
      wake();
    },
  });
  cleanups.push(() => check.close());
  const next = async (): Promise<boolean> => {
    if (seen.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    return seen.shift() ?? assert.fail();
  };
  return { check, next };
}

describe('health check of the local service', () => {
  test('two failures make it unhealthy, one success makes it healthy again', async () => {
    const statuses: number[] = [500, 200, 500, 404, 503, 302];
    let asked = 0;
    const server = createServer((request, response) => {
      assert.equal(request.url, '/up?x');
      response.statusCode = statuses[asked++] ?? 200;
      response.end();
    });
    cleanups.push(() => server.close());
    const { check, next } = watch({ url: `http://127.0.0.1:${await listen(server)}`, path: '/up?x' });
    assert.equal(check.healthy, true);
    assert.equal(await next(), false);
    assert.equal(asked, 4, 'a success between two failures starts the count again');
    assert.equal(check.healthy, false);
    assert.equal(await next(), true);
    assert.equal(asked, 6);
  });

  test('a service that does not answer in time is unhealthy', async () => {
    const server = createTcpServer((socket) => socket.on('error', () => {}));
    cleanups.push(() => server.close());
    const { next } = watch({ url: `http://127.0.0.1:${await listen(server)}`, path: '/', timeoutMs: 20 });
    assert.equal(await next(), false);
  });

  test('for h2c a connection is enough', async () => {
    const first = createTcpServer((socket) => socket.on('error', () => {}));
    const port = await listen(first);
    const { next } = watch({ url: `h2c://127.0.0.1:${port}`, path: '/ignored' });
    await once(first, 'connection');
    first.close();
    assert.equal(await next(), false);
    const second = createTcpServer((socket) => socket.on('error', () => {}));
    second.listen(port, '127.0.0.1');
    cleanups.push(() => second.close());
    assert.equal(await next(), true);
  });

  test('without a path nothing is asked, and after close nothing more', async () => {
    let asked = 0;
    const server = createServer((_request, response) => {
      asked++;
      response.end();
    });
    cleanups.push(() => server.close());
    const url = `http://127.0.0.1:${await listen(server)}`;
    watch({ url });
    const { check } = watch({ url, path: '/' });
    await once(server, 'request');
    check.close();
    await new Promise((resolve) => setTimeout(resolve, 40));
    assert.equal(asked, 1);
  });
});
