import { parseAddress } from '../../../shared/config/net-values.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import type { ClusterIdentity } from '../../../shared/tls/cluster-identity.ts';
import { RelayLink, type RelayLinkOptions } from './relay-link.ts';

/** A node of the cluster and where its relay listener is. */
export interface RelayPeer {
  readonly nodeId: NodeId;
  /** `host:port` that the other nodes reach. */
  readonly relayAddr: string;
}

export interface RelayLinksOptions extends Omit<RelayLinkOptions, 'identity'> {
  /** This node, which needs no link to itself. */
  readonly nodeId: NodeId;
  readonly identity: ClusterIdentity;
  /** Connections to each peer, 1 or more. Default 1. */
  readonly linksPerPeer?: number;
}

/** One link, for metrics and the dashboard. */
export interface LinkState {
  readonly nodeId: NodeId;
  readonly up: boolean;
  /** Milliseconds; undefined while down. */
  readonly roundTrip: number | undefined;
  readonly streams: number;
}

/**
 * Streams on the link to a node that left, or has another address now, may go on for this time, milliseconds. A node that lost
 * its lease may only have lost Redis: its link tells within seconds when it is dead.
 */
const REMOVED_DEADLINE = 3_600_000;

/** The links from this node to all others, kept up from the moment that a node joins to the one that it leaves. */
export class RelayLinks {
  readonly #options: RelayLinksOptions;
  readonly #linkOptions: RelayLinkOptions;
  readonly #peers = new Map<NodeId, { readonly relayAddr: string; readonly links: readonly RelayLink[] }>();
  /** Links that were taken away and have streams left. */
  readonly #leaving = new Set<RelayLink>();
  #identity: ClusterIdentity;
  #closed = false;

  constructor(options: RelayLinksOptions) {
    this.#options = options;
    this.#identity = options.identity;
    this.#linkOptions = { ...options, identity: () => this.#identity };
  }

  /**
   * The way to a node: its least loaded link that is up. `available` is false while all are down, and opening a stream then
   * fails with `not_processed`. Undefined for a node that is no peer.
   */
  upstream(nodeId: NodeId): RelayLink | undefined {
    const links = this.#peers.get(nodeId)?.links;
    let best = links?.[0];
    if (links === undefined || best === undefined || links.length === 1) return best;
    for (const link of links) {
      if (link.available && (!best.available || link.load < best.load)) best = link;
    }
    return best;
  }

  /** Links now, one entry for each. */
  get states(): LinkState[] {
    return [...this.#peers.values()].flatMap(({ links }) =>
      links.map((link) => ({
        nodeId: link.nodeId,
        up: link.available,
        roundTrip: link.roundTrip,
        streams: link.load,
      })),
    );
  }

  /**
   * Makes these the peers: dials those that are new or have another address, and lets go of links to others, whose streams
   * may end. This node and addresses that cannot be read are left out.
   */
  setPeers(nodes: readonly RelayPeer[]): void {
    if (this.#closed) return;
    const wanted = new Map(nodes.map(({ nodeId, relayAddr }) => [nodeId, relayAddr]));
    wanted.delete(this.#options.nodeId);
    for (const [nodeId, peer] of this.#peers) if (wanted.get(nodeId) !== peer.relayAddr) this.#remove(nodeId);
    for (const [nodeId, relayAddr] of wanted) if (!this.#peers.has(nodeId)) this.#add(nodeId, relayAddr);
  }

  /** Uses another identity of the same cluster for connections from now on. */
  reloadTls(identity: ClusterIdentity): void {
    this.#identity = identity;
  }

  /**
   * Takes no new streams and waits until those that are open are done.
   * @param deadline milliseconds; then what is left is cut off
   */
  async close(deadline: number): Promise<void> {
    this.#closed = true;
    const links = [...this.#leaving, ...[...this.#peers.values()].flatMap((peer) => peer.links)];
    this.#peers.clear();
    await Promise.all(links.map((link) => link.close(deadline)));
  }

  #add(nodeId: NodeId, relayAddr: string): void {
    const address = parseAddress(relayAddr);
    if (address === undefined || address.host === '' || address.port === 0) {
      this.#options.log.error(
        { peer: nodeId, relayAddr },
        'a node says an address for its relay that cannot be dialled',
      );
      return;
    }
    const count = Math.max(1, this.#options.linksPerPeer ?? 1);
    const links = Array.from({ length: count }, () => new RelayLink(nodeId, address, this.#linkOptions));
    this.#peers.set(nodeId, { relayAddr, links });
  }

  #remove(nodeId: NodeId): void {
    const links = this.#peers.get(nodeId)?.links ?? [];
    this.#peers.delete(nodeId);
    for (const link of links) {
      this.#leaving.add(link);
      void link.close(REMOVED_DEADLINE).then(() => this.#leaving.delete(link));
    }
  }
}
