import { CulvertError } from '../../errors/codes.ts';
import { encodePolicy, type TunnelPolicy } from '../../policy/tunnel-policy.ts';
import { EventFeed } from '../event-feed.ts';
import { ofNewestSession } from '../newest-session.ts';
import {
  type Endpoint,
  type Epoch,
  type NodeInfo,
  type NodeRecord,
  processOf,
  type Registry,
  type RegistryEvent,
  type Route,
  type SessionClaim,
  type SessionId,
  type SessionRecord,
  type SessionRef,
  sessionId,
  type TunnelClaim,
} from '../registry.ts';
import { SetIndex } from './set-index.ts';

export interface MemoryRegistryOptions {
  /** Milliseconds since the Unix epoch. Default `Date.now`. */
  readonly clock?: () => number;
}

/** A registry for one node: nothing survives the process, and a tunnel's name is free again when its last endpoint goes. */
export function createMemoryRegistry(options: MemoryRegistryOptions = {}): Registry {
  return new MemoryRegistry(options.clock ?? Date.now);
}

interface LiveSession {
  readonly record: SessionRecord;
  /** Tunnels with an endpoint of this session id, also those that a replaced session left behind. */
  readonly tunnels: Set<string>;
}

/** No method awaits between its checks and its writes, so each is atomic by the event loop. */
class MemoryRegistry implements Registry {
  readonly #clock: () => number;
  readonly #routes = new Map<string, Route>();
  readonly #sessions = new Map<SessionId, LiveSession>();
  readonly #sessionsByAgent = new SetIndex<SessionId>();
  readonly #sessionsByAccount = new SetIndex<SessionId>();
  readonly #sessionsByProcess = new SetIndex<SessionId>();
  readonly #tunnelsByAccount = new SetIndex<string>();
  readonly #feed = new EventFeed<RegistryEvent>();
  #endpoints = 0;
  #node: { readonly info: NodeInfo; readonly draining: boolean } | undefined;
  /** Of all sessions: one number for every id keeps each id's epochs rising without remembering ids that are gone. */
  #lastEpoch: Epoch = 0;
  #closed: CulvertError | undefined;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  async openSession(claim: SessionClaim): Promise<SessionRecord> {
    this.#assertOpen();
    const id = sessionId(claim.agentId, claim.instanceId, claim.slot);
    const replaced = this.#sessions.get(id);
    if (replaced !== undefined && replaced.record.accountId !== claim.accountId) {
      throw new CulvertError('tunnel_taken', `the session ${id} belongs to another account`);
    }
    if (replaced === undefined && this.#sessionsByAccount.size(claim.accountId) >= claim.maxSessionsPerAccount) {
      throw new CulvertError(
        'quota_exceeded',
        `the account has ${claim.maxSessionsPerAccount} agent connections already`,
      );
    }
    const openedAt = this.#clock();
    this.#lastEpoch = Math.max(this.#lastEpoch + 1, openedAt);
    const { agentId, accountId, instanceId, slot, nodeId } = claim;
    const record = Object.freeze({
      id,
      epoch: this.#lastEpoch,
      agentId,
      accountId,
      instanceId,
      slot,
      nodeId,
      openedAt,
    });
    this.#sessions.set(id, { record, tunnels: replaced?.tunnels ?? new Set() });
    this.#sessionsByAgent.add(agentId, id);
    this.#sessionsByAccount.add(accountId, id);
    this.#sessionsByProcess.add(processOf(id), id);
    if (replaced !== undefined) {
      const session = refOf(replaced.record);
      this.#feed.publish({ type: 'session-replaced', session, nodeId: replaced.record.nodeId });
    }
    this.#feed.publish({ type: 'session', session: record, isOpen: true });
    return record;
  }

  async closeSession(session: SessionRef): Promise<void> {
    this.#assertOpen();
    const live = this.#live(session);
    if (live === undefined) return;
    const { id, agentId, accountId } = live.record;
    this.#sessions.delete(id);
    this.#sessionsByAgent.remove(agentId, id);
    this.#sessionsByAccount.remove(accountId, id);
    this.#sessionsByProcess.remove(processOf(id), id);
    for (const name of live.tunnels) this.#removeEndpoint(name, id);
    this.#feed.publish({ type: 'session', session: live.record, isOpen: false });
  }

  async register(session: SessionRef, tunnel: TunnelClaim, maxTunnelsPerAccount: number): Promise<Route> {
    this.#assertOpen();
    const live = this.#live(session);
    if (live === undefined) {
      throw new CulvertError('session_replaced', `the session ${session.id} is closed or a newer one took over`);
    }
    const { accountId, agentId, nodeId } = live.record;
    const { name, localAddr, healthy, policy } = tunnel;
    const held = this.#routes.get(name);
    if (held !== undefined && held.accountId !== accountId) {
      throw new CulvertError('tunnel_taken', `the tunnel name ${JSON.stringify(name)} belongs to another account`);
    }
    if (held === undefined && this.#tunnelsByAccount.size(accountId) >= maxTunnelsPerAccount) {
      throw new CulvertError('quota_exceeded', `the account has ${maxTunnelsPerAccount} tunnels already`);
    }
    const endpoint: Endpoint = Object.freeze({
      session: refOf(live.record),
      nodeId,
      agentId,
      localAddr,
      healthy,
      ...(policy === undefined ? {} : { policy }),
    });
    const at = held?.endpoints.findIndex((other) => other.session.id === session.id) ?? -1;
    const before = held?.endpoints[at];
    if (held !== undefined && before !== undefined && sameEndpoint(before, endpoint)) return held;

    const endpoints = held === undefined ? [] : [...held.endpoints];
    if (before === undefined) {
      endpoints.push(endpoint);
      this.#endpoints += 1;
    } else {
      endpoints[at] = endpoint;
    }
    live.tunnels.add(name);
    this.#tunnelsByAccount.add(accountId, name);
    return this.#setRoute({ name, accountId, createdAt: held?.createdAt ?? this.#clock(), endpoints });
  }

  async unregister(session: SessionRef, name: string): Promise<void> {
    this.#assertOpen();
    const live = this.#live(session);
    if (live?.tunnels.delete(name)) this.#removeEndpoint(name, session.id);
  }

  lookup(name: string): Route | undefined {
    return this.#routes.get(name);
  }

  async find(name: string): Promise<Route | undefined> {
    return this.lookup(name);
  }

  routes(): Iterable<Route> {
    return this.#routes.values();
  }

  *sessions(): Generator<SessionRecord> {
    for (const { record } of this.#sessions.values()) yield record;
  }

  get isLoaded(): boolean {
    return true;
  }

  get isComplete(): boolean {
    return true;
  }

  async join(info: NodeInfo): Promise<void> {
    this.#assertOpen();
    this.#setNode(info, false);
  }

  async leave(): Promise<void> {
    this.#assertOpen();
    if (this.#node === undefined) return;
    const { nodeId } = this.#node.info;
    this.#node = undefined;
    this.#feed.publish({ type: 'node', nodeId, node: undefined });
  }

  async setDraining(draining: boolean): Promise<void> {
    this.#assertOpen();
    if (this.#node !== undefined && this.#node.draining !== draining) this.#setNode(this.#node.info, draining);
  }

  nodes(): readonly NodeRecord[] {
    if (this.#node === undefined) return [];
    const { info, draining } = this.#node;
    return [{ ...info, state: draining ? 'draining' : 'up', sessions: this.#sessions.size }];
  }

  async byAgent(agentId: string): Promise<SessionRecord[]> {
    this.#assertOpen();
    return Array.from(this.#sessionsByAgent.get(agentId), (id) => indexed(this.#sessions.get(id)).record);
  }

  beside(id: SessionId): readonly SessionRecord[] {
    return Array.from(this.#sessionsByProcess.get(processOf(id)))
      .filter((other) => other !== id)
      .map((other) => indexed(this.#sessions.get(other)).record);
  }

  async byAccount(accountId: string): Promise<Route[]> {
    this.#assertOpen();
    return Array.from(this.#tunnelsByAccount.get(accountId), (name) => indexed(this.#routes.get(name)));
  }

  stats(): { readonly tunnels: number; readonly endpoints: number; readonly sessions: number } {
    return { tunnels: this.#routes.size, endpoints: this.#endpoints, sessions: this.#sessions.size };
  }

  unavailable(): CulvertError | undefined {
    return this.#closed;
  }

  subscribe(listener: (event: RegistryEvent) => void): () => void {
    return this.#feed.subscribe(listener);
  }

  async close(): Promise<void> {
    this.#closed ??= new CulvertError('registry_unavailable', 'the registry is closed');
    this.#feed.clear();
  }

  #setNode(info: NodeInfo, draining: boolean): void {
    this.#node = { info, draining };
    this.#feed.publish({ type: 'node', nodeId: info.nodeId, node: this.nodes()[0] });
  }

  /** The session when exactly this epoch of it is the live one. */
  #live(session: SessionRef): LiveSession | undefined {
    const live = this.#sessions.get(session.id);
    return live?.record.epoch === session.epoch ? live : undefined;
  }

  #removeEndpoint(name: string, id: SessionId): void {
    const route = this.#routes.get(name);
    if (route === undefined) return;
    const endpoints = route.endpoints.filter((endpoint) => endpoint.session.id !== id);
    this.#endpoints -= route.endpoints.length - endpoints.length;
    if (endpoints.length > 0) {
      const { accountId, createdAt } = route;
      this.#setRoute({ name, accountId, createdAt, endpoints });
      return;
    }
    this.#routes.delete(name);
    this.#tunnelsByAccount.remove(route.accountId, name);
    this.#feed.publish({ type: 'route', name, route: undefined, before: route });
  }

  #setRoute(parts: Omit<Route, 'policy'>): Route {
    const policy = ofNewestSession(parts.endpoints, ({ session }) => session)?.policy;
    const route: Route = Object.freeze({ ...parts, ...(policy === undefined ? {} : { policy }) });
    Object.freeze(route.endpoints);
    const before = this.#routes.get(route.name);
    this.#routes.set(route.name, route);
    this.#feed.publish({ type: 'route', name: route.name, route, before });
    return route;
  }

  #assertOpen(): void {
    if (this.#closed !== undefined) throw this.#closed;
  }
}

function refOf(record: SessionRecord): SessionRef {
  return Object.freeze({ id: record.id, epoch: record.epoch });
}

function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return (
    a.session.epoch === b.session.epoch &&
    a.localAddr === b.localAddr &&
    a.healthy === b.healthy &&
    samePolicy(a.policy, b.policy)
  );
}

function samePolicy(a: TunnelPolicy | undefined, b: TunnelPolicy | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && encodePolicy(a) === encodePolicy(b));
}

function indexed<V>(value: V | undefined): V {
  if (value === undefined) throw new CulvertError('internal_error', 'an index of the registry names what is not there');
  return value;
}
