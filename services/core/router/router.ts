import type { Upstream } from '../../../shared/protocol/stream-types.ts';
import type { Endpoint, NodeId, Registry, Route, SessionId, SessionRef } from '../../../shared/registry/registry.ts';
import type { SessionTable } from '../sessions/session-table.ts';
import { RecentNames } from './recent-names.ts';

/** An endpoint that was chosen for a request. */
export interface Choice {
  readonly endpoint: Endpoint;
  readonly upstream: Upstream;
  /** Whether the upstream is a link to another node. */
  readonly isRelayed: boolean;
}

export interface RouterOptions {
  readonly registry: Registry;
  readonly table: SessionTable;
  readonly nodeId: NodeId;
  /** The link to another node; undefined when there is none. */
  readonly linkTo: (nodeId: NodeId) => Upstream | undefined;
  /** 0 ≤ x < 1. Default Math.random. */
  readonly random?: () => number;
}

type Place = 'here' | 'elsewhere';

/** Requests that may wait for a route to change. */
const MAX_WAITING = 10_000;

/**
 * Chooses who answers a request: an endpoint of this node before one that another node holds, and among those the less
 * loaded of two random ones (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). Endpoints that
 * say their service is down, or that do not answer a probe, are used only when there is nothing better: a visitor then at
 * least gets the service's own answer.
 */
export class Router {
  readonly #options: RouterOptions;
  readonly #random: () => number;
  readonly #recent = new RecentNames();
  readonly #unsubscribe: () => void;
  /** By name of the tunnel. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #waitingCount = 0;

  constructor(options: RouterOptions) {
    this.#options = options;
    this.#unsubscribe = options.registry.subscribe((event) => {
      if (event.type !== 'route') return;
      if (event.route === undefined) this.#recent.add(event.name);
      else this.#recent.delete(event.name);
      for (const wake of [...(this.#waiting.get(event.name) ?? [])]) wake();
    });
    this.#random = options.random ?? Math.random;
  }

  route(name: string): Route | undefined {
    return this.#options.registry.lookup(name);
  }

  /** For a name that `route` does not know: asks the registry's store when this node cannot hold all names. */
  find(name: string): Promise<Route | undefined> {
    return this.#options.registry.find(name);
  }

  /** Resolves at the next change of the route, or at once when too many wait. @param within milliseconds, at most */
  async whenChanged(name: string, within: number): Promise<void> {
    if (this.#waitingCount >= MAX_WAITING) return;
    const waiting = this.#waiting.get(name) ?? new Set();
    this.#waiting.set(name, waiting);
    this.#waitingCount += 1;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        waiting.delete(wake);
        if (waiting.size === 0) this.#waiting.delete(name);
        this.#waitingCount -= 1;
        resolve();
      };
      const timer = setTimeout(wake, within);
      waiting.add(wake);
    });
  }

  /** Whether the name had an endpoint a while ago and has none now. */
  wasServed(name: string): boolean {
    return this.#recent.has(name);
  }

  close(): void {
    this.#unsubscribe();
  }

  /** @param tried sessions that failed this request already */
  choose(route: Route, tried: readonly SessionId[]): Choice | undefined {
    return (
      this.#pick(route, tried, 'here', true) ??
      this.#pick(route, tried, 'elsewhere', true) ??
      this.#pick(route, tried, 'here', false) ??
      this.#pick(route, tried, 'elsewhere', false)
    );
  }

  /**
   * For a request that another node has sent here: the session that it means, or another of this node for the same tunnel.
   * Never a link, so that a request takes one hop at most.
   */
  chooseLocal(name: string, meant: SessionRef | undefined): Upstream | undefined {
    const exact = meant === undefined ? undefined : this.#options.table.find(meant)?.upstream;
    if (exact?.available) return exact;
    const route = this.route(name);
    if (route === undefined) return exact;
    const choice = this.#pick(route, [], 'here', true) ?? this.#pick(route, [], 'here', false);
    return choice?.upstream ?? exact;
  }

  #pick(route: Route, tried: readonly SessionId[], place: Place, onlyGood: boolean): Choice | undefined {
    const endpoints = route.endpoints;
    const count = endpoints.length;
    const start = count > 1 ? Math.floor(this.#random() * count) : 0;
    let first: Choice | undefined;
    // A random start and the next usable one behind it: two choices without a list of candidates.
    for (let i = 0; i < count; i += 1) {
      const endpoint = endpoints[(start + i) % count];
      if (endpoint === undefined || tried.includes(endpoint.session.id)) continue;
      const upstream = this.#upstream(endpoint, place);
      if (upstream === undefined || (onlyGood && !(endpoint.healthy && upstream.available))) continue;
      if (first !== undefined && first.upstream.load <= upstream.load) return first;
      const choice = { endpoint, upstream, isRelayed: place === 'elsewhere' };
      if (first !== undefined) return choice;
      first = choice;
    }
    return first;
  }

  #upstream(endpoint: Endpoint, place: Place): Upstream | undefined {
    const { nodeId, table, linkTo } = this.#options;
    const isHere = endpoint.nodeId === nodeId;
    if (isHere !== (place === 'here')) return undefined;
    return isHere ? table.find(endpoint.session)?.upstream : linkTo(endpoint.nodeId);
  }
}
