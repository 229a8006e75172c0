import type { CulvertError } from '../errors/codes.ts';
import type { TunnelPolicy } from '../policy/tunnel-policy.ts';

/**
 * What the cluster knows: which account owns a name, and which agent sessions serve it from which node.
 * No type of a store stands here; `registry.contract.ts` is the suite that every implementation passes.
 */

declare const brand: unique symbol;
export type NodeId = string & { readonly [brand]: 'NodeId' };
/** `agent/instance/slot`: one connection of one agent process. */
export type SessionId = string & { readonly [brand]: 'SessionId' };

/** Never decreases for a session id: max(last + 1, store time in milliseconds). */
export type Epoch = number;

/** Names one session for good: a replaced session has the same id and a lower epoch. */
export interface SessionRef {
  readonly id: SessionId;
  readonly epoch: Epoch;
}

export interface SessionClaim {
  readonly agentId: string;
  readonly accountId: string;
  /** Random per agent process, so that two processes with one agent id never replace each other. */
  readonly instanceId: string;
  /** 0, 1, …: which of the process's connections this is. */
  readonly slot: number;
  readonly nodeId: NodeId;
  /** Live sessions that the account may have; a session that replaces another of the same id does not count twice. */
  readonly maxSessionsPerAccount: number;
}

export interface SessionRecord extends SessionRef {
  readonly agentId: string;
  readonly accountId: string;
  readonly instanceId: string;
  readonly slot: number;
  readonly nodeId: NodeId;
  /** Milliseconds since the Unix epoch. */
  readonly openedAt: number;
}

export interface TunnelClaim {
  /** Subdomain (one DNS label) or custom domain (with a dot), lower case, already validated. */
  readonly name: string;
  /** Where the agent sends requests, for people to read. */
  readonly localAddr: string;
  readonly healthy: boolean;
  /** How the tunnel is to be served, as this registration wants it; see `Route.policy`. Default: every rule's default. */
  readonly policy?: TunnelPolicy;
}

export interface Endpoint {
  readonly session: SessionRef;
  readonly nodeId: NodeId;
  readonly agentId: string;
  readonly localAddr: string;
  /** False while the agent says that the local service fails its health check. */
  readonly healthy: boolean;
  /** What its registration asked for. */
  readonly policy?: TunnelPolicy;
}

/** A tunnel and who serves it now. Immutable: a change makes a new object, so a holder sees one consistent state. */
export interface Route {
  readonly name: string;
  readonly accountId: string;
  readonly createdAt: number;
  readonly endpoints: readonly Endpoint[];
  /**
   * How the tunnel is served: what the endpoint of the newest session asked for (the highest epoch), whether that is a policy
   * or none. It does not depend on the order in which endpoints are published, so every node sees the same one, also after the
   * store was rebuilt. When that endpoint goes, the newest of the rest counts.
   */
  readonly policy?: TunnelPolicy;
}

/** A node's ports as a balancer in front of the cluster sees them: plain HTTP of visitors, TLS of agents, health checks. */
export interface EdgeAddress {
  readonly host: string;
  readonly publicPort: number;
  readonly agentPort: number;
  readonly healthPort: number;
}

/** What a node tells the others of itself. */
export interface NodeInfo {
  readonly nodeId: NodeId;
  /** `host:port` where peers reach its relay listener. */
  readonly relayAddr: string;
  /** `host:port` where agents reach it. */
  readonly agentAddr: string;
  /** Name for SNI when agents reach it through a shared address. */
  readonly serverName?: string;
  /** Where a balancer in front of the cluster reaches it. Undefined: it cannot stand behind one. */
  readonly edge?: EdgeAddress;
  readonly version: string;
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number;
}

export interface NodeRecord extends NodeInfo {
  readonly state: 'up' | 'draining';
  /** Live sessions on the node, as of its last renewal. */
  readonly sessions: number;
}

export type RegistryEvent =
  /**
   * `route` is what `lookup` gives from now on, `before` what it gave until now: endpoints of nodes that are gone are not in
   * them. `before` is absent too for a name that found no room in the replica.
   */
  | {
      readonly type: 'route';
      readonly name: string;
      readonly route: Route | undefined;
      readonly before: Route | undefined;
    }
  /** `sessions` has this session from now on, or not any more. One that is replaced by a newer epoch makes one event. */
  | { readonly type: 'session'; readonly session: SessionRecord; readonly isOpen: boolean }
  | { readonly type: 'session-replaced'; readonly session: SessionRef; readonly nodeId: NodeId }
  /** A node joined, changed its state or addresses, or is gone. A new count of sessions alone makes no event. */
  | { readonly type: 'node'; readonly nodeId: NodeId; readonly node: NodeRecord | undefined };

/** Every method that changes something is one atomic step. All reject with CulvertError `registry_unavailable` when the store cannot be reached. */
export interface Registry {
  /**
   * Claims a session; an older session with the same id is replaced and a `session-replaced` event names it. The endpoints of
   * the replaced session stay as they are until the newer one registers the same name, unregisters it or closes, so that
   * neither the visitors nor the claim on the name fall into a gap between the two.
   * @throws CulvertError `quota_exceeded` when the account has `maxSessionsPerAccount` live sessions already; `tunnel_taken`
   * when the session of this id belongs to another account.
   */
  openSession(claim: SessionClaim): Promise<SessionRecord>;

  /** Removes the session and its endpoints. Does nothing when a newer epoch is there. */
  closeSession(session: SessionRef): Promise<void>;

  /**
   * Makes the session an endpoint of the tunnel, creating the tunnel when the name is free. Repeating it updates
   * `localAddr`, `healthy` and `policy`; a repeat that changes nothing makes no event.
   * @throws CulvertError `tunnel_taken` when another account holds the name; `session_replaced` when the session is not the
   * live one; `quota_exceeded` when the name is new to the account and the account has `maxTunnelsPerAccount` names already.
   */
  register(session: SessionRef, tunnel: TunnelClaim, maxTunnelsPerAccount: number): Promise<Route>;

  /** Removes the session's endpoint; the tunnel goes with its last one. Does nothing for a stale session. */
  unregister(session: SessionRef, name: string): Promise<void>;

  /** From the node's own replica: no I/O. */
  lookup(name: string): Route | undefined;

  /**
   * As `lookup`; when the replica is full and may therefore lack the name, asks the store (once for all who ask at the same
   * time, with a bounded cache, also of what does not exist). Without I/O when the replica is complete.
   * @throws CulvertError `registry_unavailable` when the store had to be asked and cannot be reached.
   */
  find(name: string): Promise<Route | undefined>;

  /**
   * All that `lookup` knows, in no order, from the replica: no I/O. May be walked with pauses; what changes meanwhile is seen or
   * not.
   */
  routes(): Iterable<Route>;

  /** The live sessions, as `routes`. Those of nodes that are gone are not among them. */
  sessions(): Iterable<SessionRecord>;

  /** Whether `routes` has every tunnel of the cluster: false when the replica is full. */
  readonly isComplete: boolean;

  byAgent(agentId: string): Promise<SessionRecord[]>;

  /** The other live sessions of the same agent process, from the replica as `sessions`. */
  beside(id: SessionId): readonly SessionRecord[];

  byAccount(accountId: string): Promise<Route[]>;

  /**
   * Makes this node a member that the others see. Resolves when they can; from then on the registry keeps it a member by
   * itself, also across loss of the store, until `leave` or `close`.
   */
  join(info: NodeInfo): Promise<void>;

  /** Takes this node out of the membership; endpoints that it still has are no longer routed. */
  leave(): Promise<void>;

  /** Tells the others that this node takes no new agents (or does again). Does nothing before `join`. */
  setDraining(draining: boolean): Promise<void>;

  /** The members that are alive, this node included, from the replica. */
  nodes(): readonly NodeRecord[];

  /** Sizes for metrics, from the replica. */
  stats(): { readonly tunnels: number; readonly endpoints: number; readonly sessions: number };

  /** Whether the store was read at least once: before, the replica knows nothing, and `find` asks the store for every name. */
  readonly isLoaded: boolean;

  /** Undefined while claims work, else why they do not. */
  unavailable(): CulvertError | undefined;

  /** Calls `listener` for each later change, in order. Returns a function that stops it. */
  subscribe(listener: (event: RegistryEvent) => void): () => void;

  close(): Promise<void>;
}

/** The id of the session in `slot` of one agent process. */
export function sessionId(agentId: string, instanceId: string, slot: number): SessionId {
  return `${idPart(agentId)}/${idPart(instanceId)}/${slot}` as SessionId;
}

/** The agent of a session id. */
export function agentOf(id: SessionId): string {
  return decodeURIComponent(id.slice(0, id.indexOf('/')));
}

/** What the sessions of one agent process have in common: their ids without the slot. */
export function processOf(id: SessionId): string {
  return id.slice(0, id.lastIndexOf('/'));
}

/** Without escapes the agent `a/b` with instance `c` would have the ids of the agent `a` with instance `b/c`. */
function idPart(part: string): string {
  return part.toWellFormed().replace(/[%/]/g, encodeURIComponent);
}
