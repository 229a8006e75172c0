import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { startClusterCore } from './cluster-core.ts';
import { agentFor, signToken } from './tunnel.ts';

describe('two nodes that share a registry', () => {
  let redis: RedisServer;
  let service: Awaited<ReturnType<typeof startHttpService>>;
  let nodes: CoreNode[];
  let agent: AgentHandle;

  const url = (node: CoreNode, path: string): string => `http://api.localhost:${node.addresses.publicPort}${path}`;

  before(async () => {
    redis = await startRedis();
    service = await startHttpService((request, response) => {
      const body: Buffer[] = [];
      request.on('data', (chunk: Buffer) => body.push(chunk));
      request.on('end', () =>
        response.end(`${request.method} ${request.url} ${Buffer.concat(body).toString('latin1')}`),
      );
    });
    const redisUrl = `redis://127.0.0.1:${redis.port}`;
    nodes = await Promise.all([startClusterCore('one', redisUrl), startClusterCore('two', redisUrl)]);
    const [first] = nodes;
    assert.ok(first !== undefined);
    agent = connect(agentFor(first, await signToken(), { api: service.url }));
    await agent.ready;
  });

  after(async () => {
    await agent.close();
    await Promise.all(nodes.map((node) => node.stop(0)));
    await service.close();
    await redis.close();
  });

  test('serve a tunnel through both, though one of them holds the agent', async () => {
    for (const node of nodes) {
      await until('the node knows the tunnel', async () => (await visit(url(node, '/'))).status === 200);
      const answer = await visit(url(node, '/far'), { method: 'POST', body: 'x'.repeat(300_000) });
      assert.equal(answer.status, 200);
      assert.equal(answer.text, `POST /far ${'x'.repeat(300_000)}`);
    }
  });

  test('lose no request when one of them stops and its agents move', async () => {
    const [first, second] = nodes;
    assert.ok(first !== undefined && second !== undefined);
    const agents = await Promise.all(
      [0, 1, 2, 3].map(async (i) => {
        const each = connect(agentFor(first, await signToken({ agentId: `agent-${i}` }), { api: service.url }));
        await each.ready;
        return each;
      }),
    );
    const failures: string[] = [];
    let asked = 0;
    let isOver = false;
    const asking = (async () => {
      while (!isOver) {
        const { status } = await visit(url(second, `/${asked}`));
        asked += 1;
        if (status !== 200) failures.push(`${asked}: ${status}`);
      }
    })();
    const before = performance.now();
    await first.stop();
    assert.ok(performance.now() - before < 15_000, 'the node waited for agents that had nowhere to go');
    const atStop = asked;
    await until('requests go on', () => asked > atStop + 50);
    isOver = true;
    await asking;
    assert.deepEqual(failures, []);
    await Promise.all(agents.map((each) => each.close()));
  });
});
