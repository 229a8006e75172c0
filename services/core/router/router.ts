import type { TunnelPolicy } from '../../../shared/policy/tunnel-policy.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { Upstream } from '../../../shared/protocol/stream-types.ts';
import {
  type Endpoint,
  type NodeId,
  processOf,
  type Registry,
  type Route,
  type SessionId,
  type SessionRef,
} from '../../../shared/registry/registry.ts';
import type { SessionTable } from '../sessions/session-table.ts';
import type { Affinity, Visit } from './affinity.ts';
import { RecentNames } from './recent-names.ts';
import { Turns } from './turns.ts';

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
  readonly affinity: Affinity;
  /** 0 ≤ x < 1. Default Math.random. */
  readonly random?: () => number;
}

type Place = 'here' | 'elsewhere';

/** Requests that may wait for a route to change. */
const MAX_WAITING = 10_000;

/**
 * Chooses who answers a request: an endpoint of this node before one that another node holds, and among those the less
 * loaded of two random ones (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), or as the tunnel's
 * policy says. Endpoints that say their service is down, or that do not answer a probe, are used only when there is nothing
 * better: a visitor then at least gets the service's own answer.
 */
export class Router {
  readonly #options: RouterOptions;
  readonly #random: () => number;
  readonly #recent = new RecentNames();
  readonly #turns = new Turns();
  readonly #unsubscribe: () => void;
  /** By name of the tunnel. */
  readonly #waiting = new Map<string, Set<() => void>>();
  #waitingCount = 0;

  constructor(options: RouterOptions) {
    this.#options = options;
    this.#unsubscribe = options.registry.subscribe((event) => {
      if (event.type !== 'route') return;
      if (event.route?.policy?.balance !== 'round-robin') this.#turns.drop(event.name);
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

  /** What ties the visitor to an agent: undefined where nothing does. @param headers of the request */
  visit(route: Route, headers: FlatHeaders): Visit | undefined {
    return route.policy?.balance === 'sticky' ? this.#options.affinity.visit(headers) : undefined;
  }

  /** The value of a Set-Cookie field that ties the visitor to this choice; undefined when it is tied already. */
  cookie(route: Route, choice: Choice, visit: Visit, isSecure: boolean): string | undefined {
    return this.#options.affinity.cookie(route, choice.endpoint, visit, isSecure);
  }

  /** @param tried sessions that failed this request already */
  choose(route: Route, tried: readonly SessionId[], visit?: Visit): Choice | undefined {
    if (route.policy !== undefined) return this.#byPolicy(route, route.policy, tried, visit);
    const { endpoints } = route;
    return (
      this.#pick(endpoints, tried, 'here', true) ??
      this.#pick(endpoints, tried, 'elsewhere', true) ??
      this.#pick(endpoints, tried, 'here', false) ??
      this.#pick(endpoints, tried, 'elsewhere', false)
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
    let { endpoints } = route;
    if (meant !== undefined && route.policy?.balance === 'sticky') {
      // The node that chose answers for the visitor's cookie, so only it may give the visitor to another agent.
      endpoints = endpoints.filter(({ session }) => processOf(session.id) === processOf(meant.id));
    }
    const choice = this.#pick(endpoints, [], 'here', true) ?? this.#pick(endpoints, [], 'here', false);
    return choice?.upstream ?? exact;
  }

  #byPolicy(
    route: Route,
    { balance }: TunnelPolicy,
    tried: readonly SessionId[],
    visit: Visit | undefined,
  ): Choice | undefined {
    const from = (endpoints: readonly Endpoint[], onlyGood: boolean): Choice | undefined =>
      this.#pick(endpoints, tried, 'here', onlyGood) ?? this.#pick(endpoints, tried, 'elsewhere', onlyGood);
    const next = (onlyGood: boolean): Choice | undefined =>
      this.#inTurn(route, tried, 'here', onlyGood) ?? this.#inTurn(route, tried, 'elsewhere', onlyGood);
    if (balance === 'round-robin') return next(true) ?? next(false);
    const { endpoints } = route;
    const kept = visit === undefined ? [] : this.#options.affinity.preferred(route, visit);
    return from(kept, true) ?? from(endpoints, true) ?? from(kept, false) ?? from(endpoints, false);
  }

  #inTurn(route: Route, tried: readonly SessionId[], place: Place, onlyGood: boolean): Choice | undefined {
    const { name, endpoints } = route;
    const start = this.#turns.start(name, endpoints.length);
    for (let i = 0; i < endpoints.length; i += 1) {
      const at = (start + i) % endpoints.length;
      const choice = this.#usable(endpoints[at], tried, place, onlyGood);
      if (choice === undefined) continue;
      this.#turns.took(name, at);
      return choice;
    }
    return undefined;
  }

  #pick(
    endpoints: readonly Endpoint[],
    tried: readonly SessionId[],
    place: Place,
    onlyGood: boolean,
  ): Choice | undefined {
    const count = endpoints.length;
    const start = count > 1 ? Math.floor(this.#random() * count) : 0;
    let first: Choice | undefined;
    // A random start and the next usable one behind it: two choices without a list of candidates.
    for (let i = 0; i < count; i += 1) {
      const choice = this.#usable(endpoints[(start + i) % count], tried, place, onlyGood);
      if (choice === undefined) continue;
      if (first !== undefined) return first.upstream.load <= choice.upstream.load ? first : choice;
      first = choice;
    }
    return first;
  }

  #usable(
    endpoint: Endpoint | undefined,
    tried: readonly SessionId[],
    place: Place,
    onlyGood: boolean,
  ): Choice | undefined {
    if (endpoint === undefined || tried.includes(endpoint.session.id)) return undefined;
    const upstream = this.#upstream(endpoint, place);
    if (upstream === undefined || (onlyGood && !(endpoint.healthy && upstream.available))) return undefined;
    return { endpoint, upstream, isRelayed: place === 'elsewhere' };
  }

  #upstream(endpoint: Endpoint, place: Place): Upstream | undefined {
    const { nodeId, table, linkTo } = this.#options;
    const isHere = endpoint.nodeId === nodeId;
    if (isHere !== (place === 'here')) return undefined;
    return isHere ? table.find(endpoint.session)?.upstream : linkTo(endpoint.nodeId);
  }
}
