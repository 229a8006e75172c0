import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { IncomingMessage, Server } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { WebSocket, WebSocketServer } from 'ws';
import { until } from '../../../shared/testkit/eventually.ts';
import { fieldValues, visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect, type TunnelPolicy } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { startClusterCore } from './cluster-core.ts';
import { agentFor, signToken } from './tunnel.ts';

/** A service that tells who it is, and which cookies came. */
interface Told {
  readonly service: string;
  readonly cookies: readonly string[];
}

interface Answer extends Told {
  readonly set: readonly string[];
}

describe('two agents of one tunnel on two nodes', () => {
  let redis: RedisServer;
  /** Those that were started, also when a later one was not. */
  const started: CoreNode[] = [];
  let nodes: readonly [CoreNode, CoreNode];
  const services: LocalService<Server>[] = [];
  const agents: AgentHandle[] = [];

  before(async () => {
    redis = await startRedis();
    const url = `redis://127.0.0.1:${redis.port}`;
    const start = async (name: string): Promise<CoreNode> => {
      const node = await startClusterCore(name, url, { 'trusted-proxies': '127.0.0.1/32' });
      started.push(node);
      return node;
    };
    nodes = [await start('one'), await start('two')];
  });
  after(async () => {
    await Promise.all(agents.map((agent) => agent.close(0)));
    await Promise.all(started.map((node) => node.stop(0)));
    await Promise.all(services.map((service) => service.close()));
    await redis.close();
  });

  async function startService(name: string): Promise<string> {
    const told = ({ rawHeaders }: IncomingMessage): string =>
      JSON.stringify({ service: name, cookies: fieldValues(rawHeaders, 'cookie') } satisfies Told);
    const service = await startHttpService((request, response) => response.end(told(request)));
    new WebSocketServer({ server: service.server }).on('connection', (socket, request) => socket.send(told(request)));
    services.push(service);
    return service.url;
  }

  /** An agent whose service has its name. */
  async function startAgent(
    agentId: string,
    tunnel: string,
    policy: TunnelPolicy,
    connections: number,
  ): Promise<AgentHandle> {
    const url = await startService(agentId);
    const options = agentFor(nodes[0], await signToken({ agentId }), { [tunnel]: url });
    const agent = connect({ ...options, tunnels: [{ name: tunnel, url, policy }], connections });
    agents.push(agent);
    await agent.ready;
    await until('it has all its sessions', () => agent.sessions.every(({ state }) => state === 'online'));
    return agent;
  }

  function nodeOf(agent: AgentHandle): string {
    return agent.sessions[0]?.nodeId ?? '';
  }

  /** Agents with one session each, one on either node. */
  async function onePerNode(tunnel: string, policy: TunnelPolicy): Promise<[AgentHandle, AgentHandle]> {
    const found = new Map<string, AgentHandle>();
    // An agent's id decides where it belongs.
    for (let i = 0; found.size < 2; i += 1) {
      assert.ok(i < 50, 'all agents belong to one node');
      const agent = await startAgent(`${tunnel}-${i}`, tunnel, policy, 1);
      if (found.has(nodeOf(agent))) await agent.close();
      else found.set(nodeOf(agent), agent);
    }
    const [one, two] = [found.get('one'), found.get('two')];
    assert.ok(one !== undefined && two !== undefined);
    return [one, two];
  }

  async function ask(node: CoreNode, tunnel: string, cookie = '', headers: object = {}): Promise<Answer> {
    const url = `http://${tunnel}.localhost:${node.addresses.publicPort}/`;
    const { status, text, rawHeaders } = await visit(url, {
      headers: { ...headers, ...(cookie === '' ? {} : { cookie }) },
    });
    assert.equal(status, 200, text);
    return { ...(JSON.parse(text) as Told), set: fieldValues(rawHeaders, 'set-cookie') };
  }

  /** What a browser would send from then on. */
  function cookieOf({ set }: Pick<Answer, 'set'>): string {
    assert.equal(set.length, 1, set.join(' | '));
    return set[0]?.split(';')[0] ?? '';
  }

  /** Resolves when every node has heard of the agent that this visitor was with. */
  async function known(tunnel: string, cookie: string, service: string): Promise<void> {
    for (const node of nodes) {
      await until('the node knows the agent', async () => (await ask(node, tunnel, cookie)).service === service);
    }
  }

  async function openSocket(node: CoreNode, tunnel: string, cookie?: string): Promise<Answer> {
    const socket = new WebSocket(`ws://127.0.0.1:${node.addresses.publicPort}/`, {
      headers: { host: `${tunnel}.localhost`, ...(cookie === undefined ? {} : { cookie }) },
    });
    const [[response], [message]] = (await Promise.all([once(socket, 'upgrade'), once(socket, 'message')])) as [
      [IncomingMessage],
      [Buffer],
    ];
    socket.terminate();
    return { ...(JSON.parse(message.toString()) as Told), set: response.headers['set-cookie'] ?? [] };
  }

  test('a sticky tunnel keeps a visitor with the first agent, through either node, with WebSockets too', async () => {
    const [one, two] = await onePerNode('kept', { balance: 'sticky' });
    const [first, second] = nodes;
    assert.deepEqual([one, two].map(nodeOf), ['one', 'two']);
    const near = await ask(first, 'kept');
    const far = await ask(second, 'kept');
    assert.notEqual(near.service, far.service);
    for (const [visitor, cookie] of [
      [near, cookieOf(near)],
      [far, cookieOf(far)],
    ] as const) {
      await known('kept', cookie, visitor.service);
      for (const node of [first, second, first, second]) {
        assert.deepEqual(await ask(node, 'kept', cookie), { service: visitor.service, cookies: [], set: [] });
        assert.deepEqual(await openSocket(node, 'kept', cookie), { service: visitor.service, cookies: [], set: [] });
      }
      const beside = await ask(second, 'kept', `a=1; ${cookie}; b="2"`);
      assert.deepEqual(beside, { service: visitor.service, cookies: ['a=1; b="2"'], set: [] });
    }
    const socket = await openSocket(second, 'kept');
    assert.equal((await openSocket(first, 'kept', cookieOf(socket))).service, socket.service);
  });

  test('the cookie is kept from scripts and other sites, and is for TLS only where the visitor came by TLS', async () => {
    const plain = await ask(nodes[0], 'kept');
    assert.match(plain.set[0] ?? '', /^culvert-affinity=[\w-]{22}; Path=\/; HttpOnly; SameSite=Lax$/);
    const secure = await ask(nodes[0], 'kept', '', { 'x-forwarded-proto': 'https' });
    assert.match(secure.set[0] ?? '', /; HttpOnly; SameSite=Lax; Secure$/);
  });

  test('a visitor whose agent is gone gets the other one and a new cookie, and no error', async () => {
    const [one] = await onePerNode('moved', { balance: 'sticky' });
    const [first, second] = nodes;
    const before = await ask(first, 'moved');
    const cookie = cookieOf(before);
    await known('moved', cookie, before.service);
    await one.close();
    const moved = await ask(second, 'moved', cookie);
    assert.notEqual(moved.service, before.service);
    for (const node of nodes) {
      assert.deepEqual(await ask(node, 'moved', cookieOf(moved)), { service: moved.service, cookies: [], set: [] });
    }
  });

  test('a round-robin tunnel takes its agents in turn on every node', async () => {
    await startAgent('turn-a', 'turns', { balance: 'round-robin' }, 2);
    await startAgent('turn-b', 'turns', { balance: 'round-robin' }, 2);
    for (const node of nodes) {
      const agentsSeen = new Set<string>();
      await until('it knows both', async () => agentsSeen.add((await ask(node, 'turns')).service).size === 2);
      const seen: string[] = [];
      for (let i = 0; i < 8; i += 1) seen.push((await ask(node, 'turns')).service);
      const [a = '', b = ''] = seen;
      assert.deepEqual(seen, [a, b, a, b, a, b, a, b]);
      assert.notEqual(a, b);
    }
    assert.deepEqual((await ask(nodes[0], 'turns')).set, []);
  });

  test('the agent that connected last decides, until it goes', async () => {
    await startAgent('older', 'decided', { balance: 'round-robin' }, 1);
    assert.deepEqual((await ask(nodes[0], 'decided')).set, []);
    const newer = await startAgent('newer', 'decided', { balance: 'sticky' }, 1);
    for (const node of nodes) {
      await until('visitors are tied', async () => (await ask(node, 'decided')).set.length === 1);
    }
    await newer.close();
    for (const node of nodes) {
      await until('visitors are free again', async () => (await ask(node, 'decided')).set.length === 0);
    }
  });
});
