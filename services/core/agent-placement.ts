import { Placement, type PlacementMember } from '../../shared/placement/placement.ts';
import { type AuthRequest, MAX_REDIRECTS } from '../../shared/protocol/messages.ts';
import {
  type NodeId,
  type NodeRecord,
  type Registry,
  type SessionRecord,
  sessionId,
} from '../../shared/registry/registry.ts';
import type { SessionTable, Way } from './sessions/session-table.ts';

export interface AgentPlacementOptions {
  readonly nodeId: NodeId;
  readonly registry: Pick<Registry, 'nodes' | 'beside'>;
  readonly table: Pick<SessionTable, 'hasSibling'>;
  /** Whether the other node answers this one. */
  readonly isAlive: (nodeId: NodeId) => boolean;
}

/** What placement wants to know of an Auth Request. */
export type PlacementRequest = Pick<
  AuthRequest,
  'features' | 'redirects' | 'failed_nodes' | 'instance_id' | 'slot' | 'sessions' | 'other_nodes'
>;

/** Sessions that an agent keeps when it does not say how many. */
const USUAL_SESSIONS = 2;

/**
 * Which node has which session of an agent. Two rules: the sessions of a process are on different nodes, and they are on those
 * that the ring gives to the agent. The first holds whatever the nodes know of each other at the moment, since two sessions
 * on one node meet in that node's own table; the second may be broken for a while, and is repaired later.
 */
export class AgentPlacement {
  readonly #options: AgentPlacementOptions;
  readonly #placement = new Placement();

  constructor(options: AgentPlacementOptions) {
    this.#options = options;
  }

  /**
   * Where a session that asks to be let in should go instead. Undefined: it stays, because it belongs here, was sent on before
   * (nodes whose views differ must not pass it to and fro), or there is no other node that it could reach.
   */
  elsewhere(agentId: string, request: PlacementRequest): Way | undefined {
    const { nodeId, registry, table, isAlive } = this.#options;
    const { instance_id: instanceId = agentId, slot = 0, redirects = 0 } = request;
    // An agent that cannot ask for a node by server name needs its address.
    const asksByName = request.features?.includes('server-name') === true;
    const canReach = ({ agentAddr }: NodeRecord): boolean => asksByName || agentAddr !== '';
    const id = sessionId(agentId, instanceId, slot);
    // The process itself knows best where its sessions are; who does not say it is looked up.
    const others = request.other_nodes ?? registry.beside(id).map((other) => other.nodeId);
    const taken = new Set<string>(others);
    const mustGo = registry.nodes().find((node) => node.nodeId === nodeId)?.state === 'draining';
    const failed = new Set(request.failed_nodes);
    if (mustGo || taken.has(nodeId) || table.hasSibling(id)) {
      const most = request.features?.includes('spread') ? MAX_REDIRECTS : 1;
      if (redirects >= most) return undefined;
      // Two sessions on one node are worse than a try in vain: a node that failed the agent may be back, and one that does not
      // answer this node now may answer the agent.
      const doubts = (node: NodeRecord): number => (isAlive(node.nodeId) ? 0 : 2) + (failed.has(node.nodeId) ? 1 : 0);
      const open = this.#inOrder(agentId, (node) => node.nodeId !== nodeId && doubts(node) < 3 && canReach(node));
      open.sort((a, b) => doubts(a) - doubts(b));
      return wayTo(open.find((node) => !taken.has(node.nodeId)) ?? (mustGo ? open[0] : undefined));
    }
    if (redirects > 0) return undefined;
    const wanted = request.sessions ?? Math.max(USUAL_SESSIONS, slot + 1, others.length + 1);
    const isOpen = (node: NodeRecord): boolean =>
      node.nodeId === nodeId || (!failed.has(node.nodeId) && isAlive(node.nodeId) && canReach(node));
    const chosen = this.#inOrder(agentId, isOpen, wanted);
    if (chosen.some((node) => node.nodeId === nodeId)) return undefined;
    return wayTo(chosen.find((node) => !taken.has(node.nodeId)));
  }

  /** Where a session of this node goes when the node leaves, if agents can reach that. */
  nextFor(session: SessionRecord): Way | undefined {
    const { nodeId, registry, isAlive } = this.#options;
    const beside = registry.beside(session.id);
    const taken = new Set(beside.map((other) => other.nodeId));
    // Of several that are here each takes another of the nodes that are free.
    const turn = beside.filter((other) => other.nodeId === nodeId && other.id < session.id).length;
    const nodes = this.#inOrder(session.agentId, (node) => node.nodeId !== nodeId && isAlive(node.nodeId));
    const free = nodes.filter((node) => !taken.has(node.nodeId));
    return wayTo(free.length > 0 ? free[turn % free.length] : nodes[0]);
  }

  /** The nodes for this agent, the first choice first. Others than this one are left out unless agents can be sent there. */
  #inOrder(agentId: string, isOpen: (node: NodeRecord) => boolean, count?: number): NodeRecord[] {
    const nodes = this.#options.registry.nodes();
    const members = nodes.map((node): PlacementMember => {
      const { nodeId, sessions } = node;
      const canGo = nodeId === this.#options.nodeId || wayTo(node) !== undefined;
      // What is left out keeps its points on the ring: no other agent's place changes by it.
      return { nodeId, sessions, state: canGo && node.state === 'up' && isOpen(node) ? 'active' : 'draining' };
    });
    const chosen = this.#placement.nodesFor(agentId, count ?? nodes.length, members);
    return chosen.flatMap((id) => nodes.find((node) => node.nodeId === id) ?? []);
  }
}

function wayTo(node: NodeRecord | undefined): Way | undefined {
  if (node === undefined || (node.agentAddr === '' && node.serverName === undefined)) return undefined;
  const { nodeId, agentAddr, serverName } = node;
  return { nodeId, address: agentAddr === '' ? undefined : agentAddr, serverName };
}
