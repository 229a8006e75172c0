import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadEdgeSyncConfig } from '../../shared/config/config.ts';
import { createLogger } from '../../shared/observability/logger.ts';
import { createRedisRegistry, type RedisRegistry } from '../../shared/registry/redis/redis-registry.ts';
import type { NodeId } from '../../shared/registry/registry.ts';
import { until } from '../../shared/testkit/eventually.ts';
import { type HaproxyServer, startHaproxy } from '../../shared/testkit/haproxy.ts';
import { visit } from '../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../shared/testkit/redis-server.ts';
import { EdgeSync } from './edge-sync.ts';

/** Names of the node that goes. */
const NAMES = 3000;
/** A change is in HAProxy within this time on a busy machine, milliseconds. A node's lease is 5 s of it. */
const PUSHED = 20_000;

describe('edge-sync with two HAProxies and a node of many tunnels', { timeout: 100_000 }, () => {
  const log = createLogger({ level: 'silent', name: 'test' });
  let redis: RedisServer;
  let haproxies: readonly HaproxyServer[];
  let services: readonly LocalService<unknown>[];
  let registries: readonly RedisRegistry[];
  let sync: EdgeSync;

  const ownersIn = async (haproxy: HaproxyServer): Promise<ReadonlyMap<string, string>> => {
    const entries = new Map<string, string>();
    const text = await haproxy.command(`show map ${join(haproxy.stateDir, 'owners.map')}`);
    for (const line of text.split('\n')) {
      const [, key, value] = line.split(' ');
      if (key !== undefined && key !== '_version') entries.set(key, value ?? '');
    }
    return entries;
  };
  const joinAs = async (index: number): Promise<void> => {
    const port = services[index]?.port ?? 0;
    await registries[index]?.join({
      nodeId: `node-${index}` as NodeId,
      relayAddr: `127.0.0.1:${port}`,
      agentAddr: '',
      edge: { host: 'localhost', publicPort: port, agentPort: port, healthPort: port },
      version: '0',
      startedAt: index,
    });
  };
  const register = async (index: number, names: readonly string[]): Promise<void> => {
    const registry = registries[index];
    assert.ok(registry !== undefined);
    const session = await registry.openSession({
      agentId: `agent-${index}`,
      accountId: `account-${index}`,
      instanceId: 'i',
      slot: 0,
      nodeId: `node-${index}` as NodeId,
      maxSessionsPerAccount: 10,
    });
    for (let at = 0; at < names.length; at += 100) {
      const some = names.slice(at, at + 100);
      await Promise.all(
        some.map((name) => registry.register(session, { name, localAddr: '', healthy: true }, 100_000)),
      );
    }
  };

  before(async () => {
    redis = await startRedis();
    haproxies = await Promise.all([startHaproxy(), startHaproxy()]);
    services = await Promise.all(
      [0, 1].map((index) => startHttpService((_request, response) => response.end(`node-${index}`))),
    );
    registries = [0, 1].map((index) =>
      createRedisRegistry({
        redis: { kind: 'single', url: redis.url },
        nodeId: `node-${index}` as NodeId,
        logger: log,
        commandTimeout: 5000,
      }),
    );
    for (const registry of registries) {
      await until('the registry takes claims', () => registry.unavailable() === undefined, PUSHED);
    }
    await Promise.all([joinAs(0), joinAs(1)]);
    const [first] = haproxies;
    sync = new EdgeSync(
      loadEdgeSyncConfig({
        flags: {
          haproxy: haproxies.map(({ adminSocket }) => adminSocket).join(','),
          'haproxy-state-dir': first?.stateDir ?? '',
          'redis-url': redis.url,
          'base-domain': 'tunnel.example',
          'metrics-addr': '127.0.0.1:0',
        },
      }),
      log,
    );
    await sync.start();
  });

  after(async () => {
    await sync?.stop();
    await Promise.all(registries?.map((registry) => registry.close()) ?? []);
    await Promise.all(services?.map((service) => service.close()) ?? []);
    await Promise.all(haproxies?.map((haproxy) => haproxy.close()) ?? []);
    await redis?.close();
  });

  test('both know the node of every host, subdomains and domains of their own, and of no other', async () => {
    await register(
      0,
      Array.from({ length: NAMES }, (_, i) => `t${i}`),
    );
    await register(1, ['stays', 'shop.example.com']);
    for (const haproxy of haproxies) {
      await until('all hosts are known', async () => (await ownersIn(haproxy)).size === NAMES + 2, PUSHED);
      const owners = await ownersIn(haproxy);
      assert.equal(owners.get('t7.tunnel.example'), owners.get('t8.tunnel.example'));
      assert.equal(owners.get('shop.example.com'), owners.get('stays.tunnel.example'));
      assert.notEqual(owners.get('shop.example.com'), owners.get('t7.tunnel.example'));
      for (const [host, node] of [
        ['t7.tunnel.example', 'node-0'],
        ['shop.example.com', 'node-1'],
      ] as const) {
        for (let i = 0; i < 5; i += 1) {
          const { text } = await visit(`http://x:${haproxy.httpPort}/`, { headers: ['Host', host] });
          assert.equal(text, node);
        }
      }
    }
    await until('it is ready', () => sync.isReady);
  });

  test('a tunnel that comes or goes is one change', async () => {
    const [haproxy] = haproxies;
    assert.ok(haproxy !== undefined);
    await register(1, ['late']);
    await until('it is known', async () => (await ownersIn(haproxy)).has('late.tunnel.example'), PUSHED);
    await until('the file has it', () =>
      readFileSync(join(haproxy.stateDir, 'owners.map'), 'utf8').includes('late.tunnel.example '),
    );
  });

  test('the death of a node with thousands of tunnels stops nobody else', async (t) => {
    const [haproxy] = haproxies;
    assert.ok(haproxy !== undefined);
    let slowest = 0;
    let isOver = false;
    const visiting = (async () => {
      while (!isOver) {
        const started = performance.now();
        const { text } = await visit(`http://x:${haproxy.httpPort}/`, { headers: ['Host', 'stays.tunnel.example'] });
        assert.equal(text, 'node-1');
        slowest = Math.max(slowest, performance.now() - started);
      }
    })();
    await registries[0]?.close();
    for (const each of haproxies) {
      await until('its hosts are gone', async () => (await ownersIn(each)).size === 3, PUSHED);
    }
    isOver = true;
    await visiting;
    t.diagnostic(`the slowest visit meanwhile took ${slowest.toFixed(1)} ms`);
    assert.ok(slowest < 2000, `a visit took ${slowest} ms`);
    const answer = await visit(`http://x:${haproxy.httpPort}/`, { headers: ['Host', 't7.tunnel.example'] });
    assert.equal(answer.text, 'node-1', 'the node that the registry has lost gets new visitors');
  });
});
