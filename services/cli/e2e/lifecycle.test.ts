import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect as connectTcp, type Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService, startTcpService } from '../../../shared/testkit/local-service.ts';
import { type AgentHandle, type AgentOptions, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { agentFor, BASE_DOMAIN, signToken, startCore, startTunnel, type Tunnel } from './tunnel.ts';

describe('stopping and coming back', () => {
  let service: LocalService<unknown>;
  let held: ServerResponse[] = [];
  let running: { close(): Promise<void> }[] = [];

  before(async () => {
    service = await startHttpService((request, response) => {
      if (request.url === '/held') {
        response.writeHead(200);
        response.write('begun, ');
        held.push(response);
      } else response.end('fine');
    });
  });
  after(() => service.close());
  afterEach(async () => {
    for (const { close } of running) await close();
    running = [];
    held = [];
  });

  async function start(): Promise<Tunnel> {
    const tunnel = await startTunnel({ services: { app: service.url } });
    running.push(tunnel);
    return tunnel;
  }

  async function startNode(flags: Readonly<Record<string, string>> = {}): Promise<CoreNode> {
    const core = await startCore(flags);
    running.push({ close: () => core.stop(0) });
    return core;
  }

  function startAgent(options: AgentOptions): AgentHandle {
    const agent = connect(options);
    running.unshift({ close: () => agent.close(0) });
    return agent;
  }

  async function readiness(dashboardPort: number): Promise<number> {
    return (await fetch(`http://127.0.0.1:${dashboardPort}/health/ready`)).status;
  }

  test('a core that stops says so first, finishes what it is answering, and then is gone', async () => {
    const tunnel = await start();
    const { dashboardPort, publicPort } = tunnel.core.addresses;
    assert.equal(await readiness(dashboardPort), 200);
    const page = visit(`${tunnel.url('app')}/held`);
    await until('the request is at the service', () => held.length === 1);
    const stopped = tunnel.core.stop(10_000);
    assert.equal(await readiness(dashboardPort), 503);
    held[0]?.end('finished');
    const { text, complete } = await page;
    assert.deepEqual([text, complete], ['begun, finished', true]);
    await stopped;
    for (const port of [dashboardPort, publicPort]) await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
  });

  test('a core that stops cuts off what takes longer than the deadline', async () => {
    const tunnel = await start();
    const page = visit(`${tunnel.url('app')}/held`);
    await until('the request is at the service', () => held.length === 1);
    const started = performance.now();
    await tunnel.core.stop(300);
    const took = performance.now() - started;
    assert.ok(took >= 290 && took < 2000, `stopping took ${took} ms`);
    assert.equal((await page).complete, false);
  });

  test('an agent that stops finishes what it is answering', async () => {
    const tunnel = await start();
    const page = visit(`${tunnel.url('app')}/held`);
    await until('the request is at the service', () => held.length === 1);
    const stopped = tunnel.agent.close(10_000);
    await until('new requests are refused', async () => (await visit(tunnel.url('app'))).status >= 400);
    held[0]?.end('finished');
    const { text, complete } = await page;
    assert.deepEqual([text, complete], ['begun, finished', true]);
    await stopped;
  });

  test('an agent is back within a second of a core that was restarted on its port', async () => {
    const tunnel = await start();
    const { agentPort } = tunnel.core.addresses;
    await tunnel.core.stop(0);
    await once(tunnel.agent, 'disconnected');
    const core = await startNode({ 'agent-addr': `127.0.0.1:${agentPort}` });
    const url = `http://app.${BASE_DOMAIN}:${core.addresses.publicPort}`;
    const took = await until('the tunnel serves', async () => (await visit(url)).text === 'fine');
    assert.ok(took < 1000, `it took ${took} ms`);
  });

  test('an agent that starts before its core serves once the core is there', async () => {
    const first = await startNode();
    const options = agentFor(first, await signToken(), { app: service.url });
    await first.stop(0);
    const agent = startAgent(options);
    await once(agent, 'disconnected');
    const core = await startNode({ 'agent-addr': `127.0.0.1:${options.server.port}` });
    await agent.ready;
    assert.equal((await visit(`http://app.${BASE_DOMAIN}:${core.addresses.publicPort}`)).text, 'fine');
  });

  test('a connection that falls silent is given up by both ends, and the agent comes back on another', async () => {
    const core = await startNode({ 'heartbeat-interval': '100ms', 'heartbeat-timeout': '400ms' });
    const pairs: [Socket, Socket][] = [];
    const path = await startTcpService((near) => {
      const far = connectTcp(core.addresses.agentPort, '127.0.0.1');
      far.on('error', () => {});
      pairs.push([near, far]);
      near.pipe(far).pipe(near);
    });
    running.push(path);
    const token = await signToken();
    const agent = startAgent({
      ...agentFor(core, token, { app: service.url }),
      server: { host: '127.0.0.1', port: path.port },
    });
    await agent.ready;
    const url = `http://app.${BASE_DOMAIN}:${core.addresses.publicPort}`;
    const page = visit(`${url}/held`);
    await until('the request is at the service', () => held.length === 1);
    const closed = new Promise((resolve) => held[0]?.on('close', resolve));

    // Neither end hears anything from now on, not even that the other is gone.
    for (const [near, far] of pairs) near.unpipe(far).pause() && far.unpipe(near).pause();
    assert.equal((await page).complete, false);
    await closed;
    await until('the tunnel serves again', async () => (await visit(url)).text === 'fine');
    assert.equal(pairs.length, 2);
  });
});
