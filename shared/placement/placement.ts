import HashRing from 'hashring';
import { CulvertError } from '../errors/codes.ts';
import type { NodeId } from '../registry/registry.ts';

/** A node of the cluster, as placement sees it. */
export interface PlacementMember {
  readonly nodeId: NodeId;
  /** Agent sessions that the node holds now. */
  readonly sessions: number;
  /** A draining node keeps its points on the ring and gets nothing. */
  readonly state: 'active' | 'draining';
}

export interface PlacementOptions {
  /**
   * How far above the average a node may be loaded, a factor above 1. Default 1.25: by the paper's analysis a search then
   * passes 1/0.25² full nodes at most on average, whatever the size of the cluster.
   */
  readonly loadFactor?: number;
}

const DEFAULT_LOAD_FACTOR = 1.25;
/**
 * Hashes for each node; ketama takes four points from each. 640 points keep the nodes' shares of the ring within a few
 * percent of each other (the deviation is about 1/√640), so that the load bound, which moves agents off their place, is
 * rarely reached by chance.
 */
const HASHES_PER_NODE = 160;

/**
 * Which nodes hold an agent's sessions: consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam,
 * "Consistent Hashing with Bounded Loads", SODA 2018) on a ketama ring. Every node comes to the same answer from the same
 * members; views that differ for a moment cost one redirect, nothing else.
 */
export class Placement {
  readonly #loadFactor: number;
  #ring: HashRing | undefined;
  #ringIds = new Set<NodeId>();

  /** @throws CulvertError `invalid_config` unless `loadFactor` is above 1 */
  constructor(options: PlacementOptions = {}) {
    this.#loadFactor = options.loadFactor ?? DEFAULT_LOAD_FACTOR;
    if (!(this.#loadFactor > 1)) throw new CulvertError('invalid_config', 'the load factor must be above 1');
  }

  /**
   * The nodes for an agent, the first choice first: up to `count` distinct active ones, fewer only when there are fewer. A
   * node at `capacity` is passed over, unless it has the agent already or the others are too few; then the least loaded go
   * first.
   * @param count sessions of the agent, 1 or more
   * @param held nodes that have a session of the agent now, within their `sessions`. Load never moves an agent away from
   * them: else a node that gets full would seem wrong to all of its agents at once. Default none: for an agent that comes.
   */
  nodesFor(
    agentId: string,
    count: number,
    members: readonly PlacementMember[],
    held: readonly NodeId[] = [],
  ): NodeId[] {
    const active = new Map<string, PlacementMember>();
    for (const member of members) if (member.state === 'active') active.set(member.nodeId, member);
    if (active.size === 0) return [];
    const capacity = this.capacity(members, Math.max(0, count - held.length));
    const chosen: NodeId[] = [];
    const full: PlacementMember[] = [];
    for (const id of this.#ringOf(members).range(agentId, members.length, true)) {
      const member = active.get(id);
      if (member === undefined) continue;
      if (member.sessions < capacity || held.includes(member.nodeId)) chosen.push(member.nodeId);
      else full.push(member);
      if (chosen.length === count) return chosen;
    }
    full.sort((a, b) => a.sessions - b.sessions);
    return [...chosen, ...full.slice(0, count - chosen.length).map((member) => member.nodeId)];
  }

  /**
   * Sessions that an active node may have: the load factor times the average, rounded up.
   * @param coming sessions that are about to be placed. Default 0
   */
  capacity(members: readonly PlacementMember[], coming = 0): number {
    let nodes = 0;
    let sessions = coming;
    for (const member of members) {
      // What a draining node still has will come to the others.
      sessions += member.sessions;
      if (member.state === 'active') nodes += 1;
    }
    return nodes === 0 ? 0 : Math.ceil((this.#loadFactor * sessions) / nodes);
  }

  /** The ring of these members, made anew only when their ids differ from those of the last call. */
  #ringOf(members: readonly PlacementMember[]): HashRing {
    const known = this.#ringIds;
    if (this.#ring !== undefined && members.length === known.size && members.every(({ nodeId }) => known.has(nodeId))) {
      return this.#ring;
    }
    this.#ringIds = new Set(members.map(({ nodeId }) => nodeId));
    // Sorted, because where two nodes have the same point the first one gets it.
    const servers = Object.fromEntries([...this.#ringIds].sort().map((id) => [id, { vnodes: HASHES_PER_NODE }]));
    // Only servers with a count that is not the ring's own get exactly that many: from equal weights the package computes
    // floor(1/n · count · n), which is one less for 7, 14, 28, 49 … nodes, and every agent of those points would move.
    this.#ring = new HashRing(servers, 'md5', { 'vnode count': 1, 'max cache size': 1 });
    return this.#ring;
  }
}
