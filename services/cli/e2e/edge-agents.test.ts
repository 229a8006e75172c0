import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { freePort, type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { CLUSTER_SECRET } from './cluster-core.ts';
import { agentOptions } from './cluster-kit.ts';
import { TestEdge } from './edge-kit.ts';
import { startCore } from './tunnel.ts';

/** Nodes without an address for agents, as containers are: HAProxy is the only way to them, and server names tell them apart. */
describe('agents that know no address but that of HAProxy', { timeout: 120_000 }, () => {
  const NAMES = ['one', 'two', 'three'];
  let redis: RedisServer;
  let edge: TestEdge;
  const nodes = new Map<string, CoreNode>();
  let service: LocalService<unknown>;
  const agents: AgentHandle[] = [];

  before(async () => {
    redis = await startRedis();
    edge = await TestEdge.start(redis.url);
    service = await startHttpService((_request, response) => response.end('hello'));
    for (const name of NAMES) {
      const relay = `127.0.0.1:${await freePort()}`;
      const flags = {
        'redis-url': redis.url,
        'cluster-secret': CLUSTER_SECRET,
        'node-id': name,
        'relay-addr': relay,
        'relay-advertise': relay,
        // One that the system chooses could not be told to HAProxy.
        'public-addr': `127.0.0.1:${await freePort()}`,
        'agent-server-name': `${name}.localhost`,
        'trusted-proxies': '127.0.0.1',
        'drain-timeout': '20s',
        'drain-delay': '500ms',
      };
      nodes.set(name, await startCore(flags));
    }
    await edge.startSync();
    await until('HAProxy has all nodes up', async () => (await edge.up()) === 3, 15_000);
    await until('HAProxy knows their names', async () => (await edge.map('nodes.map')).size === 3, 15_000);
  });

  after(async () => {
    await Promise.all(agents.map((agent) => agent.close(0)));
    await Promise.all([...nodes.values()].map((node) => node.stop(0)));
    await edge?.close();
    await Promise.all([service?.close(), redis?.close()]);
  });

  const places = (agent: AgentHandle): (string | undefined)[] => agent.sessions.map(({ nodeId }) => nodeId);
  const isSpread = (agent: AgentHandle): boolean =>
    agent.sessions.every(({ state }) => state === 'online') && new Set(places(agent)).size === 2;

  test('have their sessions on different nodes', async () => {
    for (let i = 0; i < 6; i += 1) {
      const options = await agentOptions(edge.haproxy.agentsPort, `app-${i}`, service.url, `account-${i}`);
      agents.push(connect(options));
    }
    await Promise.all(agents.map((agent) => agent.ready));
    await until('each has two sessions on two nodes', () => agents.every(isSpread), 20_000);
  });

  test('go on to the nodes that are left when one drains, and stay apart', async () => {
    const [name, node] = [...nodes][0] ?? assert.fail('there is no node');
    nodes.delete(name);
    await node.stop();
    await until(
      'each has two sessions on the two others',
      () => agents.every((agent) => isSpread(agent) && !places(agent).includes(name)),
      20_000,
    );
    for (let i = 0; i < agents.length; i += 1) {
      assert.equal((await visit(edge.url(`app-${i}`))).text, 'hello');
    }
  });
});
