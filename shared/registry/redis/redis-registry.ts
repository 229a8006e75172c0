import { CulvertError } from '../../errors/codes.ts';
import type { Logger } from '../../observability/logger.ts';
import { connect, type Link, type RedisAddress, unavailable } from '../../redis/connection.ts';
import { EventFeed } from '../event-feed.ts';
import type {
  NodeId,
  NodeInfo,
  NodeRecord,
  Registry,
  RegistryEvent,
  Route,
  SessionClaim,
  SessionId,
  SessionRecord,
  SessionRef,
  TunnelClaim,
} from '../registry.ts';
import { Claims, rebuilding } from './claims.ts';
import { Heartbeat } from './heartbeat.ts';
import { Janitor } from './janitor.ts';
import { shardOf } from './keys.ts';
import { Membership, type Renewal } from './membership.ts';
import { Owned, type OwnedSession } from './owned.ts';
import { Rebuild } from './rebuild.ts';
import { parseRoute, parseSessionChange } from './records.ts';
import { Replica } from './replica.ts';
import { RouteCache } from './route-cache.ts';
import { Scripts } from './scripts.ts';
import { Sync } from './sync.ts';
import { Withdrawal } from './withdrawal.ts';

export interface RedisRegistryOptions {
  readonly redis: RedisAddress;
  readonly nodeId: NodeId;
  readonly logger: Logger;
  /** Milliseconds, 300 or more. Renewed each third; a node that does not is dead. The same on all nodes. Default 5,000. */
  readonly lease?: number;
  /** Milliseconds that one command may take. Default 1,000. */
  readonly commandTimeout?: number;
  /** Names in the replica; `find` reads the rest from the store. Default 250,000: about 320 MB with two endpoints each. */
  readonly maxNames?: number;
}

export interface RedisRegistry extends Registry {
  /** Resolves when the replica has everything that was in the store at the call. @throws CulvertError `registry_unavailable` */
  caughtUp(): Promise<void>;
}

/** Connects in the background: until it is connected, `unavailable()` says so. */
export function createRedisRegistry(options: RedisRegistryOptions): RedisRegistry {
  return new ClusterRegistry(options);
}

const MIN_LEASE = 300;

class ClusterRegistry implements RedisRegistry {
  readonly #nodeId: NodeId;
  readonly #lease: number;
  readonly #timeout: number;
  readonly #log: Logger;
  readonly #link: Link;
  readonly #feed = new EventFeed<RegistryEvent>();
  readonly #owned = new Owned();
  readonly #replica: Replica;
  readonly #sync: Sync;
  readonly #membership: Membership;
  readonly #claims: Claims;
  readonly #rebuild: Rebuild;
  readonly #janitor: Janitor;
  readonly #cache: RouteCache;
  readonly #heartbeat: Heartbeat;
  #closed: CulvertError | undefined;

  constructor(options: RedisRegistryOptions) {
    const { nodeId, logger, redis, lease = 5000, commandTimeout = 1000, maxNames = 250_000 } = options;
    this.#nodeId = nodeId;
    this.#lease = Math.max(MIN_LEASE, lease);
    this.#timeout = commandTimeout;
    this.#log = logger;
    this.#link = connect(redis, commandTimeout, logger);
    const client = this.#link.commands;
    const scripts = new Scripts(client, this.#lease);
    const withdrawal = new Withdrawal(scripts);
    this.#replica = new Replica(this.#feed, maxNames);
    this.#sync = new Sync(
      scripts,
      this.#replica,
      {
        onSession: (shard, id, payload) => this.#onSession(shard, id, payload),
        onRoute: (name) => this.#cache.drop(name),
        onGeneration: (shard) => this.#rebuild.require(shard),
        onResync: (shard) => this.#onResync(shard),
        onNodesChanged: () => this.#heartbeat.soon(),
      },
      logger,
    );
    this.#membership = new Membership(nodeId, this.#lease, scripts, this.#replica, this.#feed);
    this.#claims = new Claims({
      client,
      scripts,
      withdrawal,
      nodeId,
      owned: this.#owned,
      membership: this.#membership,
      applied: ({ shard, generation, version }) => this.#sync.reached(shard, generation, version, commandTimeout),
    });
    this.#rebuild = new Rebuild({
      nodeId,
      scripts,
      withdrawal,
      owned: this.#owned,
      replica: this.#replica,
      membership: this.#membership,
      isOpening: ({ id }) => this.#claims.opening(id) !== undefined,
      onLost: (session) => this.#onLost(session),
      log: logger,
    });
    this.#janitor = new Janitor(client, scripts, withdrawal, this.#lease, logger);
    this.#cache = new RouteCache(async (name) => {
      const json = await this.#claims.fetch(name);
      return json === null ? undefined : this.#replica.visible(name, parseRoute(json));
    });
    this.#link.events.on('message', (_channel: string, text: string) => this.#onMessage(text));
    this.#heartbeat = new Heartbeat({
      link: this.#link,
      membership: this.#membership,
      sync: this.#sync,
      lease: this.#lease,
      timeout: commandTimeout,
      sessions: () => this.#owned.size,
      onRenewed: (renewal, isFirst) => this.#onRenewed(renewal, isFirst),
      log: logger,
    });
  }

  openSession(claim: SessionClaim): Promise<SessionRecord> {
    return this.#changing(() => this.#claims.openSession(claim), true);
  }

  closeSession(session: SessionRef): Promise<void> {
    return this.#changing(() => this.#claims.closeSession(session), false);
  }

  register(session: SessionRef, tunnel: TunnelClaim, maxTunnelsPerAccount: number): Promise<Route> {
    return this.#changing(() => this.#claims.register(session, tunnel, maxTunnelsPerAccount), true);
  }

  unregister(session: SessionRef, name: string): Promise<void> {
    return this.#changing(() => this.#claims.unregister(session, name), false);
  }

  lookup(name: string): Route | undefined {
    return this.#replica.lookup(name);
  }

  async find(name: string): Promise<Route | undefined> {
    const route = this.#replica.lookup(name);
    if (route !== undefined || this.#replica.isComplete(shardOf(name))) return route;
    return this.#asking(() => this.#cache.get(name));
  }

  routes(): Iterable<Route> {
    return this.#replica.routes();
  }

  sessions(): Iterable<SessionRecord> {
    return this.#replica.sessions.visible();
  }

  get isLoaded(): boolean {
    return this.#sync.isLoaded;
  }

  get isComplete(): boolean {
    return this.#replica.isAllComplete;
  }

  byAgent(agentId: string): Promise<SessionRecord[]> {
    return this.#asking(() => this.#claims.byAgent(agentId));
  }

  beside(id: SessionId): readonly SessionRecord[] {
    return this.#replica.sessions.beside(id);
  }

  byAccount(accountId: string): Promise<Route[]> {
    return this.#asking(() => this.#claims.byAccount(accountId));
  }

  async join(info: NodeInfo): Promise<void> {
    if (info.nodeId !== this.#nodeId) {
      throw new CulvertError('internal_error', `the registry is that of node ${this.#nodeId}, not of ${info.nodeId}`);
    }
    this.#membership.setInfo(info);
    await this.#asking(() => this.#heartbeat.renewNow());
  }

  async leave(): Promise<void> {
    if (this.#membership.isMember) await this.#asking(() => this.#membership.leave());
  }

  async setDraining(draining: boolean): Promise<void> {
    if (!this.#membership.isMember) return;
    this.#membership.setDraining(draining);
    await this.#asking(() => this.#heartbeat.renewNow());
  }

  nodes(): readonly NodeRecord[] {
    return this.#membership.members;
  }

  stats(): { readonly tunnels: number; readonly endpoints: number; readonly sessions: number } {
    return this.#replica.stats();
  }

  unavailable(): CulvertError | undefined {
    const problem = this.#closed ?? this.#heartbeat.problem();
    if (problem !== undefined) return problem;
    const opensIn = this.#sync.opensIn;
    return opensIn > 0 ? rebuilding(opensIn) : undefined;
  }

  subscribe(listener: (event: RegistryEvent) => void): () => void {
    return this.#feed.subscribe(listener);
  }

  caughtUp(): Promise<void> {
    return this.#asking(() => this.#sync.caughtUp(this.#timeout));
  }

  async close(): Promise<void> {
    if (this.#closed !== undefined) return;
    this.#closed = new CulvertError('registry_unavailable', 'the registry is closed');
    this.#feed.clear();
    this.#sync.close();
    this.#link.close();
    await this.#heartbeat.close();
  }

  #onMessage(text: string): void {
    try {
      this.#sync.onMessage(text);
    } catch (error) {
      this.#log.error({ err: error }, 'an event of the registry cannot be read');
    }
  }

  #onSession(shard: number, id: SessionId, payload: string): void {
    if (payload === '') {
      this.#replica.sessions.set(shard, id, undefined);
      return;
    }
    const [now, before] = parseSessionChange(payload);
    this.#replica.sessions.set(shard, id, now);
    if (before === null) return;
    const mine = this.#owned.get({ id, epoch: before.p });
    if (mine !== undefined) mine.isReplaced = true;
    const event = { type: 'session-replaced', session: { id, epoch: before.p }, nodeId: before.n } as const;
    // Events can overtake answers: who just opened the session must know of it before hearing that it was replaced.
    const opening = this.#claims.opening(id);
    const publish = (): void => this.#feed.publish(event);
    if (opening === undefined) publish();
    else opening.then(() => setImmediate(publish), publish);
  }

  #onResync(shard: number): void {
    this.#cache.clear();
    for (const session of [...this.#owned.values()]) {
      const { id, epoch, accountId } = session.record;
      const now = shardOf(accountId) === shard ? this.#replica.sessions.get(shard, id) : undefined;
      if (now !== undefined && now.epoch > epoch) this.#onLost(session);
    }
  }

  /** A newer session took over while this node could not hear of it. */
  #onLost({ record, isReplaced }: OwnedSession): void {
    this.#owned.delete(record);
    if (isReplaced) return;
    const session = { id: record.id, epoch: record.epoch };
    this.#feed.publish({ type: 'session-replaced', session, nodeId: record.nodeId });
  }

  #onRenewed(renewal: Renewal, isFirst: boolean): void {
    if (renewal.wasUnknown && !isFirst) this.#rebuild.require();
    this.#background(this.#rebuild.run(!this.#sync.isRebuilding), 'publish the sessions of this node again');
    if (renewal.leads) this.#background(this.#janitor.run(renewal), 'sweep what dead nodes left');
  }

  #background(work: Promise<void>, what: string): void {
    work.catch((error) => {
      if (this.#closed === undefined) this.#log.warn({ err: error }, `could not ${what}; trying again`);
    });
  }

  /** @param claims true for what is refused while the registry is rebuilt or the lease is not renewed */
  async #changing<T>(action: () => Promise<T>, claims: boolean): Promise<T> {
    const why = claims ? this.unavailable() : this.#closed;
    if (why !== undefined) throw why;
    try {
      return await this.#asking(action);
    } catch (error) {
      // Whether Redis did it is unknown. What it did against the answer is found once it is back.
      if (error instanceof CulvertError && error.code === 'registry_unavailable') this.#rebuild.requireAudit();
      throw error;
    }
  }

  /** @throws CulvertError `registry_unavailable` for whatever keeps Redis from answering, within twice the command timeout */
  async #asking<T>(action: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) throw this.#closed;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new CulvertError('registry_unavailable', 'the registry did not answer in time');
      timer = setTimeout(reject, 2 * this.#timeout, error);
    });
    try {
      return await Promise.race([action(), late]);
    } catch (error) {
      throw unavailable(error);
    } finally {
      clearTimeout(timer);
    }
  }
}
