import assert from 'node:assert/strict';
import type { Server } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { startClusterCore } from './cluster-core.ts';
import { answerFor } from './load.ts';
import { agentFor, signToken } from './tunnel.ts';

const [ONE, TWO] = ['one' as NodeId, 'two' as NodeId];

describe('a node that is drained while it runs', { timeout: 120_000 }, () => {
  let redis: RedisServer;
  let service: LocalService<Server>;
  let one: CoreNode;
  let two: CoreNode;
  const agents: AgentHandle[] = [];

  const readiness = async (node: CoreNode): Promise<{ status: number; checks: Record<string, boolean> }> => {
    const response = await fetch(`http://127.0.0.1:${node.addresses.dashboardPort}/health/ready`);
    const { checks } = (await response.json()) as { checks: Record<string, boolean> };
    return { status: response.status, checks };
  };
  const sessionsOf = async (nodeId: NodeId): Promise<number> => (await two.calls.call(nodeId, 'inspect', {})).sessions;
  const url = (node: CoreNode, path: string): string => `http://api.localhost:${node.addresses.publicPort}${path}`;
  const addAgent = async (node: CoreNode): Promise<AgentHandle> => {
    const token = await signToken({ agentId: `agent-${agents.length}` });
    const agent = connect(agentFor(node, token, { api: service.url }));
    agents.push(agent);
    await agent.ready;
    return agent;
  };
  const nodeOf = (agent: AgentHandle): string | undefined => agent.sessions[0]?.nodeId;

  before(async () => {
    redis = await startRedis();
    service = await startHttpService((request, response) => answerFor('api', request, response));
    const redisUrl = `redis://127.0.0.1:${redis.port}`;
    [one, two] = await Promise.all([startClusterCore(ONE, redisUrl), startClusterCore(TWO, redisUrl)]);
    for (let i = 0; i < 8; i += 1) await addAgent(one);
    await until('both nodes have agents', async () => (await sessionsOf(ONE)) > 0 && (await sessionsOf(TWO)) > 0);
    await until('both nodes serve', async () => (await visit(url(two, '/'))).status === 200);
  });

  after(async () => {
    await Promise.all(agents.map((agent) => agent.close(0)));
    await Promise.all([one, two].map((node) => node?.stop(0)));
    await service?.close();
    await redis?.close();
  });

  test('turns its readiness, gives its agents away and loses no request, and takes agents again', async () => {
    const faults: string[] = [];
    let asked = 0;
    let isOver = false;
    const asking = [one, two].map(async (node) => {
      while (!isOver) {
        const { status, complete } = await visit(url(node, `/${asked}`));
        asked += 1;
        if (status !== 200 || !complete) faults.push(`${asked}: ${status}`);
      }
    });
    const slow = visit(url(one, '/slow?count=20'));
    const readyBefore = await readiness(one);
    assert.equal(readyBefore.status, 200);

    const { draining } = await two.calls.call(ONE, 'drain', {}, 5000);
    assert.equal(draining, true);
    const drained = await readiness(one);
    assert.deepEqual([drained.status, drained.checks['admitting'], drained.checks['serving']], [503, false, true]);
    await until('all agents have moved', async () => (await sessionsOf(ONE)) === 0, 20_000);
    assert.deepEqual(new Set(agents.map(nodeOf)), new Set([TWO]));
    assert.equal((await two.calls.call(ONE, 'inspect', {})).draining, true);

    const late = await addAgent(one);
    assert.equal(nodeOf(late), TWO, 'a drained node let an agent in');
    const { status, body } = await slow;
    assert.deepEqual([status, body.length], [200, 20_000]);
    assert.equal((await visit(url(one, '/still'))).status, 200);

    assert.equal((await one.calls.call(ONE, 'undrain', {})).draining, false);
    await until('it is ready again', async () => (await readiness(one)).status === 200);
    await until('an agent is let in again', async () => nodeOf(await addAgent(one)) === ONE, 20_000);
    isOver = true;
    await Promise.all(asking);
    assert.deepEqual(faults, []);
    assert.ok(asked > 50, `${asked} requests are no traffic`);
  });

  test('is refused that when its agents would have nowhere to go, and serves on', async () => {
    await two.calls.call(ONE, 'drain', {}, 5000);
    await assert.rejects(
      one.calls.call(TWO, 'drain', {}, 5000),
      (error) => error instanceof CulvertError && error.code === 'no_other_node',
    );
    assert.equal((await readiness(two)).status, 200);
    await two.calls.call(ONE, 'undrain', {}, 5000);

    await until('both take agents', async () => (await readiness(one)).status === 200);
    const results = await Promise.allSettled([
      two.calls.call(ONE, 'drain', {}, 5000),
      one.calls.call(TWO, 'drain', {}, 5000),
    ]);
    const done = results.filter(({ status }) => status === 'fulfilled').length;
    assert.ok(done < 2, 'both nodes were drained at once');
    await one.calls.call(ONE, 'undrain', {}, 5000);
    await one.calls.call(TWO, 'undrain', {}, 5000);
    for (const node of [one, two]) await until('it is ready', async () => (await readiness(node)).status === 200);
  });

  test('is ended in order, without another wait for what has gone already', async () => {
    await two.calls.call(ONE, 'drain', {}, 5000);
    await until('all agents have moved', async () => (await sessionsOf(ONE)) === 0, 20_000);
    const before = performance.now();
    await one.stop();
    assert.ok(performance.now() - before < 10_000);
    assert.equal((await visit(url(two, '/'))).status, 200);
  });
});
