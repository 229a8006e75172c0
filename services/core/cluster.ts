import { hostname } from 'node:os';
import { formatAddress } from '../../shared/config/net-values.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import type { ByteBudget } from '../../shared/protocol/budget.ts';
import type { Upstream } from '../../shared/protocol/stream-types.ts';
import type { EdgeAddress, NodeId, Registry } from '../../shared/registry/registry.ts';
import type { ClusterIdentity } from '../../shared/tls/cluster-identity.ts';
import { VERSION } from '../../shared/version.ts';
import { AgentPlacement } from './agent-placement.ts';
import type { CallLink } from './calls/call-client.ts';
import type { CallServer } from './calls/call-server.ts';
import { type LinkState, RelayLinks } from './relay/relay-links.ts';
import { RelayListener } from './relay/relay-listener.ts';
import type { Router } from './router/router.ts';
import type { SessionTable } from './sessions/session-table.ts';

export interface ClusterOptions {
  readonly nodeId: NodeId;
  readonly registry: Registry;
  readonly router: Router;
  readonly table: SessionTable;
  readonly log: Logger;
  readonly processBudget: ByteBudget;
  /** Answers what other nodes ask this one. */
  readonly calls: CallServer;
  /** Asked at the start and at each renewal. */
  readonly identity: () => Promise<ClusterIdentity>;
  /** Where the other nodes connect; an empty host means all addresses. */
  readonly relayAddr: { readonly host: string; readonly port: number };
  /** What the other nodes are told; undefined: the host name and the port that the listener got. */
  readonly relayAdvertise: { readonly host: string; readonly port: number } | undefined;
  /** Where agents reach this node; undefined: other nodes send none here. */
  readonly agentAdvertise: { readonly host: string; readonly port: number } | undefined;
  /** Name by which agents ask a balancer in front for this node. */
  readonly serverName: string | undefined;
}

/** Longest wait for the links to the other nodes at the start, milliseconds. */
const LINKS_TIMEOUT = 3000;

/** This node's place among others: its links to them, the listener for theirs, and its membership. */
export class Cluster {
  readonly #options: ClusterOptions;
  readonly #links: RelayLinks;
  readonly #listener: RelayListener;
  readonly placement: AgentPlacement;
  readonly #joined: Promise<void>;
  #hasJoined: () => void = () => {};
  #onLinkChange: (() => void) | undefined;
  readonly #unsubscribe: () => void;

  /** @throws CulvertError `invalid_config` for a secret, node id or file that makes no identity, or an address in use */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const identity = await options.identity();
    const cluster = new Cluster(options, identity);
    await cluster.#listener.listen();
    return cluster;
  }

  private constructor(options: ClusterOptions, identity: ClusterIdentity) {
    const { nodeId, registry, router, table, log, processBudget, calls, relayAddr } = options;
    this.#options = options;
    this.#joined = new Promise((resolve) => {
      this.#hasJoined = resolve;
    });
    this.placement = new AgentPlacement({
      nodeId,
      registry,
      table,
      isAlive: (peer) => this.#links.upstream(peer)?.available === true,
    });
    this.#links = new RelayLinks({
      nodeId,
      identity,
      log,
      processBudget,
      onChange: (peer, up, reason) => {
        log.info({ peer, up, reason }, 'relay link');
        this.#onLinkChange?.();
      },
    });
    this.#listener = new RelayListener({
      host: relayAddr.host === '' ? undefined : relayAddr.host,
      port: relayAddr.port,
      identity,
      log,
      processBudget,
      pickLocal: (head, endpoint) => router.chooseLocal(head.tunnel, endpoint),
      onCall: (peer, stream, head, body, end) => calls.accept(peer, stream, head, body, end),
    });
    this.#unsubscribe = registry.subscribe((event) => {
      if (event.type === 'node') this.#links.setPeers(registry.nodes());
    });
  }

  /** Makes or reads a new certificate for this node, used for links from now on. */
  async renewIdentity(): Promise<void> {
    const identity = await this.#options.identity();
    this.#links.reloadTls(identity);
    this.#listener.reloadTls(identity);
  }

  get relayPort(): number {
    return this.#listener.address.port;
  }

  /** The way to another node, for its endpoints. */
  upstream(nodeId: NodeId): (Upstream & CallLink) | undefined {
    return this.#links.upstream(nodeId);
  }

  /** The links to the other nodes. */
  get links(): readonly LinkState[] {
    return this.#links.states;
  }

  /** Whether the links to all other nodes are up. */
  get isLinked(): boolean {
    return this.#links.states.every(({ up }) => up);
  }

  /** The other nodes. */
  get peers(): readonly NodeId[] {
    const { registry, nodeId } = this.#options;
    return registry.nodes().flatMap((node) => (node.nodeId === nodeId ? [] : node.nodeId));
  }

  /** Whether another node takes agents now. */
  get hasOthers(): boolean {
    const { registry, nodeId } = this.#options;
    return registry.nodes().some((node) => node.nodeId !== nodeId && node.state === 'up');
  }

  /** Resolves once the other nodes are known and linked, or that takes too long: an agent can then be sent to its node. */
  get joined(): Promise<void> {
    return this.#joined;
  }

  /** Becomes a member that others send requests to. @param edge where a balancer in front reaches this node */
  async join(edge: EdgeAddress | undefined): Promise<void> {
    const { registry, nodeId, relayAdvertise, agentAdvertise, serverName, log } = this.#options;
    const info = {
      nodeId,
      relayAddr: formatAddress(relayAdvertise ?? { host: hostname(), port: this.relayPort }),
      agentAddr: agentAdvertise === undefined ? '' : formatAddress(agentAdvertise),
      ...(serverName === undefined ? {} : { serverName }),
      ...(edge === undefined ? {} : { edge }),
      version: VERSION,
      startedAt: Date.now(),
    };
    try {
      await registry.join(info);
    } catch (error) {
      // The registry joins by itself once its store is there; until then this node serves nobody, and says so.
      log.warn({ err: error }, 'the cluster cannot be joined yet');
    }
    this.#links.setPeers(registry.nodes());
    await this.#linksUp();
    this.#hasJoined();
  }

  /** The first visitor may ask for an agent of another node: wait for the links, but not for a peer that is gone. */
  async #linksUp(): Promise<void> {
    if (this.isLinked) return;
    await new Promise<void>((resolve) => {
      const giveUp = setTimeout(resolve, LINKS_TIMEOUT);
      this.#onLinkChange = () => {
        if (!this.isLinked) return;
        clearTimeout(giveUp);
        resolve();
      };
    });
    this.#onLinkChange = undefined;
  }

  /**
   * Tells the other nodes that this one takes no new agents, or does again.
   * @throws CulvertError `registry_unavailable`; the next renewal of the lease tells them all the same
   */
  setDraining(draining: boolean): Promise<void> {
    return this.#options.registry.setDraining(draining);
  }

  /** Leaves the membership, then finishes what other nodes have sent. @param deadline milliseconds */
  async stop(deadline: number): Promise<void> {
    this.#unsubscribe();
    try {
      await this.#options.registry.leave();
    } catch (error) {
      // The lease ends by itself.
      this.#options.log.warn({ err: error }, 'the membership could not be ended');
    }
    await Promise.all([
      this.#links.close(deadline),
      this.#listener.isListening ? this.#listener.drain(deadline) : undefined,
    ]);
  }
}
