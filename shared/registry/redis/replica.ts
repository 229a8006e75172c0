import type { EventFeed } from '../event-feed.ts';
import type { NodeId, RegistryEvent, Route, SessionRef } from '../registry.ts';
import { SHARDS, shardOf } from './keys.ts';
import { routeOf, type StoredRoute } from './records.ts';
import { ReplicaSessions } from './replica-sessions.ts';

/** One life of a node's process as far as Redis knows. Endpoints and sessions live as long as it does. */
interface Owner {
  readonly nodeId: string;
  readonly incarnation: number;
  alive: boolean;
  readonly names: Set<string>;
}

interface Entry {
  readonly stored: StoredRoute;
  readonly owners: readonly Owner[];
}

/**
 * The node's copy of the routes. `lookup` reads one map that holds ready answers: endpoints of dead nodes are taken out when
 * a node dies, not when somebody asks.
 */
export class Replica {
  readonly #feed: EventFeed<RegistryEvent>;
  readonly #limit: number;
  readonly sessions: ReplicaSessions;
  readonly #visible = new Map<string, Route>();
  readonly #entries: readonly Map<string, Entry>[] = Array.from({ length: SHARDS }, () => new Map());
  readonly #owners = new Map<string, Owner>();
  /** The lowest incarnation of each node that may still be alive. Infinity once the node is gone. */
  readonly #aliveFrom = new Map<string, number>();
  /** Shards that were not read yet, or have names that found no room. */
  readonly #incomplete = new Set<number>(Array.from({ length: SHARDS }, (_, shard) => shard));
  #size = 0;
  #endpoints = 0;

  /** @param limit names that it holds at most */
  constructor(feed: EventFeed<RegistryEvent>, limit: number) {
    this.#feed = feed;
    this.#limit = limit;
    this.sessions = new ReplicaSessions(feed, (by, incarnation) => incarnation >= (this.#aliveFrom.get(by) ?? 0));
  }

  /** The routes that `lookup` gives. */
  routes(): Iterable<Route> {
    return this.#visible.values();
  }

  lookup(name: string): Route | undefined {
    return this.#visible.get(name);
  }

  isComplete(shard: number): boolean {
    return !this.#incomplete.has(shard);
  }

  get isAllComplete(): boolean {
    return this.#incomplete.size === 0;
  }

  stats(): { readonly tunnels: number; readonly endpoints: number; readonly sessions: number } {
    return { tunnels: this.#visible.size, endpoints: this.#endpoints, sessions: this.sessions.size };
  }

  /** Node ids that endpoints or sessions name. */
  owningNodes(): Set<string> {
    return new Set([...Array.from(this.#owners.values(), ({ nodeId }) => nodeId), ...this.sessions.owners()]);
  }

  endpointsBy(nodeId: string): { name: string; session: SessionRef }[] {
    const found: { name: string; session: SessionRef }[] = [];
    for (const owner of this.#owners.values()) {
      if (owner.nodeId !== nodeId) continue;
      for (const name of owner.names) {
        for (const { s, p, b } of this.#entries[shardOf(name)]?.get(name)?.stored.e ?? []) {
          if (b === nodeId) found.push({ name, session: { id: s, epoch: p } });
        }
      }
    }
    return found;
  }

  /** What `lookup` would say of a route that is not in the replica. */
  visible(name: string, stored: StoredRoute): Route {
    const live = stored.e.filter(({ b, i }) => i >= (this.#aliveFrom.get(b) ?? 0));
    return routeOf(name, live.length === stored.e.length ? stored : { ...stored, e: live });
  }

  /**
   * @param keep endpoints of other nodes stay although the store does not name them: it lost its data, and those nodes may
   * not have published them again yet
   */
  setRoute(shard: number, name: string, stored: StoredRoute | undefined, keep: boolean): void {
    const entries = this.#entries[shard];
    const before = entries?.get(name);
    if (entries === undefined || (before === undefined && stored === undefined)) {
      // Of a name that found no room the listeners hear all the same.
      if (this.#incomplete.has(shard)) this.#feed.publish({ type: 'route', name, route: undefined, before: undefined });
      return;
    }
    if (stored === undefined) {
      this.#forget(before, name);
      entries.delete(name);
      this.#size -= 1;
      this.#show(name, undefined);
      return;
    }
    if (before === undefined && this.#size >= this.#limit) {
      this.#incomplete.add(shard);
      this.#feed.publish({ type: 'route', name, route: this.visible(name, stored), before: undefined });
      return;
    }
    if (before === undefined) this.#size += 1;
    const merged = keep ? merge(before?.stored, stored) : stored;
    const entry = { stored: merged, owners: merged.e.map(({ b, i }) => this.#owner(b, i)) };
    this.#forget(before, name, entry);
    for (const owner of entry.owners) owner.names.add(name);
    entries.set(name, entry);
    this.#show(name, this.#visibleOf(name, entry));
  }

  /** Takes over all routes of a shard, telling listeners of what differs only. @param keep as in `setRoute` */
  replaceRoutes(shard: number, routes: ReadonlyMap<string, StoredRoute>, keep: boolean): void {
    const entries = this.#entries[shard];
    if (entries === undefined) return;
    if (!keep) {
      for (const name of [...entries.keys()]) if (!routes.has(name)) this.setRoute(shard, name, undefined, false);
      this.#incomplete.delete(shard);
    }
    for (const [name, stored] of routes) {
      const before = entries.get(name)?.stored;
      if (before === undefined || !same(before, keep ? merge(before, stored) : stored)) {
        this.setRoute(shard, name, stored, keep);
      }
    }
  }

  /** @param from the lowest incarnation of the node that is alive; Infinity for none */
  setAlive(nodeId: NodeId | string, from: number): void {
    if ((this.#aliveFrom.get(nodeId) ?? 0) === from) return;
    this.#aliveFrom.set(nodeId, from);
    for (const owner of [...this.#owners.values()]) {
      const alive = owner.incarnation >= from;
      if (owner.nodeId !== nodeId || owner.alive === alive) continue;
      owner.alive = alive;
      for (const name of owner.names) this.#refresh(name);
    }
    this.sessions.refresh(nodeId);
    // An absent node is told from a dead one by its owners alone, so nothing is remembered of nodes that left no trace.
    if (from === Number.POSITIVE_INFINITY && !this.owningNodes().has(nodeId)) this.#aliveFrom.delete(nodeId);
  }

  #refresh(name: string): void {
    const entry = this.#entries[shardOf(name)]?.get(name);
    if (entry !== undefined) this.#show(name, this.#visibleOf(name, entry));
  }

  #visibleOf(name: string, { stored, owners }: Entry): Route {
    if (owners.every(({ alive }) => alive)) return routeOf(name, stored);
    return routeOf(name, { ...stored, e: stored.e.filter((_, i) => owners[i]?.alive) });
  }

  #show(name: string, route: Route | undefined): void {
    const before = this.#visible.get(name);
    this.#endpoints += (route?.endpoints.length ?? 0) - (before?.endpoints.length ?? 0);
    if (route === undefined) this.#visible.delete(name);
    else this.#visible.set(name, route);
    this.#feed.publish({ type: 'route', name, route, before });
  }

  #owner(nodeId: string, incarnation: number): Owner {
    const key = `${incarnation} ${nodeId}`;
    let owner = this.#owners.get(key);
    if (owner === undefined) {
      const alive = incarnation >= (this.#aliveFrom.get(nodeId) ?? 0);
      owner = { nodeId, incarnation, alive, names: new Set() };
      this.#owners.set(key, owner);
    }
    return owner;
  }

  #forget(entry: Entry | undefined, name: string, next?: Entry): void {
    for (const owner of entry?.owners ?? []) {
      if (next?.owners.includes(owner)) continue;
      owner.names.delete(name);
      if (owner.names.size === 0) this.#owners.delete(`${owner.incarnation} ${owner.nodeId}`);
    }
  }
}

function merge(before: StoredRoute | undefined, stored: StoredRoute): StoredRoute {
  if (before === undefined || before.a !== stored.a) return stored;
  const known = new Set(stored.e.map(({ s }) => s));
  const publishers = new Set(stored.e.map(({ b }) => b));
  const missing = before.e.filter(({ s, b }) => !known.has(s) && !publishers.has(b));
  return missing.length === 0 ? stored : { ...stored, e: [...stored.e, ...missing] };
}

function same(a: StoredRoute, b: StoredRoute): boolean {
  return (
    a.a === b.a &&
    a.c === b.c &&
    a.e.length === b.e.length &&
    a.e.every((x, at) => {
      const y = b.e[at];
      return (
        y !== undefined &&
        x.s === y.s &&
        x.p === y.p &&
        x.b === y.b &&
        x.i === y.i &&
        x.l === y.l &&
        x.h === y.h &&
        x.y === y.y
      );
    })
  );
}
