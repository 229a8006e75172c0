import { readFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { createLogger } from '../../../shared/observability/logger.ts';
import type { RedisAddress } from '../../../shared/redis/connection.ts';
import { createRedisRegistry } from '../../../shared/registry/redis/redis-registry.ts';
import type { NodeId, Registry, Route } from '../../../shared/registry/registry.ts';
import { until } from '../../../shared/testkit/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../../../shared/testkit/fault-proxy.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { freePort, type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { scrape } from '../../../shared/testkit/metrics.ts';
import type { RedisServer } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, type AgentOptions, connect } from '../../agent/index.ts';
import { Balancer } from './balancer.ts';
import { CLUSTER_SECRET } from './cluster-core.ts';
import { answerFor } from './load.ts';
import { type CoreProcess, startCoreProcess } from './processes.ts';
import { BASE_DOMAIN, signToken, stateDir } from './tunnel.ts';

/** Several real nodes as processes, real agents and services, and a way to break each of the links between them. */

/** Exit code of a node that was told to end and did so in order. */
const STOPPED_BY_SIGTERM = 143;

/** Short pauses in the usual run, the real ones with CULVERT_HEAVY=1: milliseconds. */
export function pauseOf(usual: number, heavy: number): number {
  return process.env['CULVERT_HEAVY'] === '1' ? heavy : usual;
}

interface Ports {
  readonly public: number;
  readonly agent: number;
  readonly relay: number;
  readonly dashboard: number;
}

/** One node. Its ports stay when it is started again. */
export class TestNode {
  readonly name: string;
  readonly #ports: Ports;
  readonly #flags: Readonly<Record<string, string>>;
  /** Before the ports where agents and other nodes come in, and between this node and Redis. */
  readonly agents: FaultProxy;
  readonly relay: FaultProxy;
  readonly redis: FaultProxy | undefined;
  #process: CoreProcess | undefined;

  constructor(
    name: string,
    ports: Ports,
    ways: { readonly agents: FaultProxy; readonly relay: FaultProxy; readonly redis: FaultProxy | undefined },
    flags: Readonly<Record<string, string>>,
  ) {
    this.name = name;
    this.#ports = ports;
    this.agents = ways.agents;
    this.relay = ways.relay;
    this.redis = ways.redis;
    this.#flags = flags;
  }

  get publicPort(): number {
    return this.#ports.public;
  }

  get agentPort(): number {
    return this.agents.port;
  }

  /** Where it listens for agents itself, behind `agents`. */
  get ownAgentPort(): number {
    return this.#ports.agent;
  }

  get log(): string {
    return this.#process?.process.stdout ?? '';
  }

  get metricsPort(): number {
    return this.#process?.metricsPort ?? 0;
  }

  /** Largest resident memory of its process so far, bytes. */
  get peakMemory(): number {
    return this.#process?.process.peakMemory ?? 0;
  }

  url(tunnel: string, path = '/'): string {
    return `http://${tunnel}.${BASE_DOMAIN}:${this.#ports.public}${path}`;
  }

  /** Resolves when it serves. */
  async start(): Promise<void> {
    const at = (port: number): string => `127.0.0.1:${port}`;
    this.#process = await startCoreProcess({
      'node-id': this.name,
      'cluster-secret': CLUSTER_SECRET,
      'public-addr': at(this.#ports.public),
      'agent-addr': at(this.#ports.agent),
      'agent-advertise': at(this.agents.port),
      'relay-addr': at(this.#ports.relay),
      'relay-advertise': at(this.relay.port),
      'dashboard-addr': at(this.#ports.dashboard),
      'drain-delay': '1s',
      ...this.#flags,
    });
  }

  metrics(): Promise<ReadonlyMap<string, number>> {
    return scrape(this.#process?.metricsPort ?? 0);
  }

  /** What a balancer would see. */
  async isReady(): Promise<boolean> {
    const asked = fetch(`http://127.0.0.1:${this.#ports.dashboard}/health/ready`, { signal: AbortSignal.timeout(500) });
    return asked.then(
      async (response) => {
        await response.arrayBuffer();
        return response.ok;
      },
      () => false,
    );
  }

  /** Ends it as a crash would. */
  async kill(): Promise<void> {
    await this.#process?.process.kill('SIGKILL');
  }

  pause(): void {
    this.#process?.process.child.kill('SIGSTOP');
  }

  resume(): void {
    this.#process?.process.child.kill('SIGCONT');
  }

  /** Ends it in order; resolves when it is gone. @throws Error when it did not end well */
  async stop(): Promise<void> {
    const exit = await this.#process?.process.kill('SIGTERM');
    if (exit !== undefined && exit.code !== STOPPED_BY_SIGTERM)
      throw new Error(`${this.name} ended badly: ${exit.stderr}${exit.stdout}`);
  }

  async close(): Promise<void> {
    this.resume();
    await this.kill();
    await Promise.all([this.agents.close(), this.relay.close(), this.redis?.close()]);
  }
}

/** An agent with a tunnel and an account of its own. */
export class TestAgent {
  readonly tunnel: string;
  readonly handle: AgentHandle;
  readonly #service: LocalService<Server>;
  /** Codes of the errors that ended its sessions or attempts. */
  readonly losses: string[] = [];

  private constructor(tunnel: string, handle: AgentHandle, service: LocalService<Server>) {
    this.tunnel = tunnel;
    this.handle = handle;
    this.#service = service;
    handle.on('disconnected', ({ error }) => this.losses.push(error.code));
  }

  /** @param port where agents are let in */
  static async start(tunnel: string, port: number, options: Partial<AgentOptions> = {}): Promise<TestAgent> {
    const service = await startHttpService((request, response) => answerFor(tunnel, request, response));
    const handle = connect(await agentOptions(port, tunnel, service.url, `account-${tunnel}`, options));
    return new TestAgent(tunnel, handle, service);
  }

  /** The nodes that hold its sessions. */
  get nodes(): readonly string[] {
    return this.handle.sessions.flatMap(({ nodeId, state }) => (state === 'online' ? (nodeId ?? []) : []));
  }

  async close(): Promise<void> {
    await this.handle.close(0);
    await this.#service.close();
  }
}

/** An agent of `account` that asks for `tunnel` at this port. */
export async function agentOptions(
  port: number,
  tunnel: string,
  url: string,
  account: string,
  options: Partial<AgentOptions> = {},
): Promise<AgentOptions> {
  return {
    server: { host: '127.0.0.1', port },
    tls: { ca: readFileSync(`${stateDir}/tls/ca.crt`, 'utf8') },
    token: await signToken({ agentId: `agent-${account}-${tunnel}`, accountId: account }),
    tunnels: [{ name: tunnel, url }],
    connections: 2,
    reconnectInterval: 1000,
    ...options,
  };
}

type Flags = Readonly<Record<string, string>>;

export interface TestClusterOptions {
  /** How many. Default 3. */
  readonly nodes?: number;
  /** Passed through a proxy for each node; or, where nodes must find several servers by themselves, a URL for all. */
  readonly redis: RedisServer | string;
  /** How an onlooker reaches the same registry. */
  readonly address: RedisAddress;
  /** Options of each node by key. */
  readonly flags?: Flags | ((name: string) => Flags);
}

export class TestCluster {
  readonly nodes: readonly TestNode[];
  readonly agents: TestAgent[] = [];
  /** In front of all nodes. */
  readonly balancer: Balancer<TestNode>;
  /** Sees the registry as a node does, but is none. */
  readonly onlooker: Registry;

  private constructor(nodes: readonly TestNode[], balancer: Balancer<TestNode>, onlooker: Registry) {
    this.nodes = nodes;
    this.balancer = balancer;
    this.onlooker = onlooker;
  }

  /** Resolves when all nodes are ready and see each other. */
  static async start({ nodes = 3, redis, address, flags = {} }: TestClusterOptions): Promise<TestCluster> {
    const onlooker = createRedisRegistry({
      redis: address,
      nodeId: 'onlooker' as NodeId,
      logger: createLogger({ level: 'silent', name: 'onlooker' }),
    });
    const flagsOf = typeof flags === 'function' ? flags : (): Flags => flags;
    const names = Array.from({ length: nodes }, (_, i) => `node-${i + 1}`);
    const made = await Promise.all(names.map((name) => makeNode(name, redis, flagsOf(name))));
    const cluster = new TestCluster(made, await Balancer.start(made), onlooker);
    try {
      // The first one makes the authority of the certificates that all share.
      await made[0]?.start();
      await Promise.all(made.slice(1).map((node) => node.start()));
      await cluster.settled();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  node(index: number): TestNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`there is no node ${index}`);
    return node;
  }

  /** The node that holds this session of the agent. */
  holderOf(agent: TestAgent, slot = 0): TestNode {
    const name = agent.handle.sessions[slot]?.nodeId;
    const node = this.nodes.find((each) => each.name === name);
    if (node === undefined) throw new Error(`${agent.tunnel} has no session ${slot}`);
    return node;
  }

  /** Starts an agent for each of `tunnels`; resolves when all are served through every node. */
  async addAgents(tunnels: readonly string[], options: Partial<AgentOptions> = {}): Promise<TestAgent[]> {
    const port = this.balancer.agentPort;
    const added = await Promise.all(tunnels.map((tunnel) => TestAgent.start(tunnel, port, options)));
    this.agents.push(...added);
    await this.settled();
    return added;
  }

  /**
   * Resolves when every node is ready and known, every agent has all its sessions, each on a node of its own, and every tunnel
   * answers everywhere.
   */
  async settled(within = 20_000): Promise<void> {
    for (const node of this.nodes) await until(`${node.name} is ready`, () => node.isReady(), within);
    await until('all nodes are members', () => this.members.length === this.nodes.length, within);
    for (const agent of this.agents) {
      await until(`${agent.tunnel} has all its sessions`, () => this.isServed(agent), within);
      const { nodes } = agent;
      const most = Math.min(agent.handle.sessions.length, this.nodes.length);
      if (new Set(nodes).size < most) throw new Error(`${agent.tunnel} has its sessions on ${nodes.join(' and ')}`);
      for (const node of this.nodes) await this.answers(agent.tunnel, node, within);
    }
  }

  /** Whether the agent has all its sessions, each with its endpoint in the registry. */
  isServed({ handle, tunnel }: TestAgent): boolean {
    const isOnline = handle.sessions.every(({ state }) => state === 'online');
    return isOnline && this.route(tunnel)?.endpoints.length === handle.sessions.length;
  }

  /** Resolves when the tunnel answers through this node. */
  async answers(tunnel: string, node: TestNode, within = 20_000): Promise<void> {
    const isServed = async (): Promise<boolean> => (await visit(node.url(tunnel))).status === 200;
    await until(`${tunnel} answers through ${node.name}`, () => isServed().catch(() => false), within);
  }

  get members(): readonly string[] {
    return this.onlooker.nodes().flatMap(({ nodeId, state }) => (state === 'up' ? nodeId : []));
  }

  route(tunnel: string): Route | undefined {
    return this.onlooker.lookup(tunnel);
  }

  /** Endpoints that the registry names at this node. */
  endpointsAt(node: TestNode): number {
    return this.agents.reduce((sum, { tunnel }) => {
      const at = this.route(tunnel)?.endpoints.filter(({ nodeId }) => nodeId === node.name) ?? [];
      return sum + at.length;
    }, 0);
  }

  async close(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.close()));
    await this.balancer.close();
    await Promise.all(this.nodes.map((node) => node.close()));
    await this.onlooker.close();
  }
}

async function makeNode(
  name: string,
  redis: RedisServer | string,
  flags: Readonly<Record<string, string>>,
): Promise<TestNode> {
  const ports = {
    public: await freePort(),
    agent: await freePort(),
    relay: await freePort(),
    dashboard: await freePort(),
  };
  const ways = {
    agents: await startFaultProxy(ports.agent),
    relay: await startFaultProxy(ports.relay),
    redis: typeof redis === 'string' ? undefined : await startFaultProxy(redis.port),
  };
  const url = typeof redis === 'string' ? redis : `redis://127.0.0.1:${ways.redis?.port}`;
  return new TestNode(name, ports, ways, { 'redis-url': url, ...flags });
}
