import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../../../shared/testkit/fault-proxy.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { freePort, type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { AgentDetail, AgentPage, NodePage, TunnelView } from '../../dashboard/api/schemas.ts';
import { createToken } from '../token.ts';
import { startClusterCore } from './cluster-core.ts';
import { answerFor } from './load.ts';
import { agentFor, SECRET, signToken } from './tunnel.ts';

describe('the API of a cluster', { timeout: 120_000 }, () => {
  let redis: RedisServer;
  let service: LocalService<Server>;
  let relay: FaultProxy;
  let one: CoreNode;
  let two: CoreNode;
  const agents: AgentHandle[] = [];
  let token: string;

  const ask = async (node: CoreNode, path: string, method = 'GET'): Promise<{ status: number; body: unknown }> => {
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(`http://127.0.0.1:${node.addresses.dashboardPort}/api/v1${path}`, { method, headers });
    return { status: response.status, body: await response.json() };
  };

  before(async () => {
    redis = await startRedis();
    service = await startHttpService((request, response) => answerFor('api', request, response));
    const redisUrl = `redis://127.0.0.1:${redis.port}`;
    const relayPort = await freePort();
    relay = await startFaultProxy(relayPort);
    const ways = { 'relay-addr': `127.0.0.1:${relayPort}`, 'relay-advertise': `127.0.0.1:${relay.port}` };
    [one, two] = await Promise.all([startClusterCore('one', redisUrl, ways), startClusterCore('two', redisUrl)]);
    token = await createToken({ role: 'operator', secret: SECRET }, {});
    for (const node of [one, two]) {
      await until('the nodes know each other', async () => {
        const { data } = NodePage.safeParse((await ask(node, '/nodes')).body);
        return data?.items.length === 2 && data.partial.length === 0;
      });
    }
    for (let i = 0; i < 8; i += 1) {
      const each = connect(agentFor(two, await signToken({ agentId: `agent-${i}` }), { api: service.url }));
      agents.push(each);
      await each.ready;
    }
    await until('every session is known to both nodes', async () => {
      const pages = await Promise.all(
        [one, two].map(async (node) => TunnelView.safeParse((await ask(node, '/tunnels/api')).body)),
      );
      return pages.every(({ data }) => data?.endpoints.length === agents.length);
    });
  });

  after(async () => {
    await Promise.all(agents.map((agent) => agent.close(0)));
    await Promise.all([one, two].map((node) => node?.stop(0)));
    await Promise.all([service?.close(), relay?.close()]);
    await redis?.close();
  });

  test('tells the same from every node, with figures of the nodes that have the sessions', async () => {
    const url = `http://api.localhost:${one.addresses.publicPort}/`;
    await until('it serves', async () => (await visit(url)).status === 200);
    for (const node of [one, two]) {
      const nodes = NodePage.parse((await ask(node, '/nodes')).body);
      assert.deepEqual(
        nodes.items.map(({ nodeId, figures }) => [nodeId, figures?.ready]),
        [
          ['one', true],
          ['two', true],
        ],
      );
      assert.deepEqual(nodes.partial, []);
      const { items } = AgentPage.parse((await ask(node, '/agents')).body);
      const sessions = items.flatMap((agent) => agent.sessions);
      assert.deepEqual([items.length, sessions.length], [agents.length, agents.length]);
      assert.deepEqual(new Set(sessions.map(({ nodeId }) => nodeId)), new Set(['one', 'two']));
      for (const { figures } of sessions) assert.equal(figures?.remoteAddress, '127.0.0.1');
      assert.ok(sessions.some(({ figures }) => (figures?.requests ?? 0) > 0));
      const { tunnels, accountId } = AgentDetail.parse((await ask(node, '/agents/agent-1')).body);
      assert.equal(accountId, 'account-1');
      assert.deepEqual(
        tunnels.map(({ name }) => name),
        ['api'],
      );
    }
  });

  test('ends a session of another node, whose agent comes back', async () => {
    const there = agents.findIndex(({ sessions }) => sessions[0]?.nodeId === 'one');
    const agent = agents[there];
    assert.ok(agent !== undefined);
    const path = `/agents/agent-${there}`;
    const [far] = AgentDetail.parse((await ask(two, path)).body).sessions;
    assert.equal(far?.nodeId, 'one');
    const gone = new Promise<string>((resolve) => agent.on('disconnected', ({ error }) => resolve(error.code)));
    const { status, body } = await ask(two, `${path}/sessions/${encodeURIComponent(far?.id ?? '')}`, 'DELETE');
    assert.deepEqual([status, body], [200, { sessions: 1 }]);
    assert.equal(await gone, 'kicked');
    await until('it is back', async () => {
      const { data } = AgentDetail.safeParse((await ask(two, path)).body);
      return data?.sessions.some(({ id, epoch }) => id === far?.id && epoch > far.epoch) ?? false;
    });
  });

  test('drains a node from another, and undrains it', async () => {
    assert.equal((await ask(two, '/nodes/one/drain', 'POST')).status, 200);
    await until('all say so', async () => {
      const { items } = NodePage.parse((await ask(one, '/nodes')).body);
      return items.some(
        ({ nodeId, state, figures }) => nodeId === 'one' && state === 'draining' && figures?.draining === true,
      );
    });
    const refused = await ask(one, '/nodes/two/drain', 'POST');
    assert.deepEqual(
      [refused.status, (refused.body as { error: { code: string } }).error.code],
      [409, 'no_other_node'],
    );
    assert.equal((await ask(two, '/nodes/one/undrain', 'POST')).status, 200);
  });

  test('gives what it has when a node is silent, and says whose part is missing, within seconds', async () => {
    relay.silence();
    const isMissing = async (): Promise<boolean> => {
      const started = performance.now();
      const { partial } = NodePage.parse((await ask(two, '/nodes')).body);
      assert.ok(performance.now() - started < 4000, 'the answer waited for the silent node');
      return partial.length > 0;
    };
    // Figures are good for a second.
    await until('the silent node is named', isMissing, 5000);
    const { items, partial } = NodePage.parse((await ask(two, '/nodes')).body);
    assert.deepEqual(
      items.map(({ nodeId, figures }) => [nodeId, figures !== null]),
      [
        ['one', false],
        ['two', true],
      ],
    );
    assert.deepEqual(
      partial.map(({ nodeId, code }) => [nodeId, ['timeout', 'not_processed', 'connection_closed'].includes(code)]),
      [['one', true]],
    );
    const page = AgentPage.parse((await ask(two, '/agents')).body);
    assert.equal(page.total, agents.length);
    relay.heal();
    await until(
      'it answers again',
      async () => NodePage.parse((await ask(two, '/nodes')).body).partial.length === 0,
      15_000,
    );
  });
});
