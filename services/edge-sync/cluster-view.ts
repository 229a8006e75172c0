import type { NodeId, NodeRecord, Registry, Route } from '../../shared/registry/registry.ts';
import { ownersOf } from './owners.ts';

/** What changed: the owners of one host, or the nodes and with them anything. */
export type ViewChange = { readonly host: string } | 'nodes';

/** What stands in a command or a map of HAProxy: nothing that could end a word or a line there. */
const SAFE_NAME = /^[a-z0-9._-]{1,253}$/;

/** What a balancer must know of the cluster, kept from the registry's events. */
export class ClusterView {
  readonly #registry: Registry;
  readonly #baseDomain: string;
  readonly #routes = new Map<string, Route>();
  readonly #listeners = new Set<(change: ViewChange) => void>();
  readonly #unsubscribe: () => void;
  #usable = new Set<NodeId>();

  /** Must see the registry before it has read anything: what is there already makes no event. */
  constructor(registry: Registry, baseDomain: string) {
    this.#registry = registry;
    this.#baseDomain = baseDomain;
    this.#unsubscribe = registry.subscribe((event) => {
      if (event.type === 'route') this.#setRoute(event.name, event.route);
      else if (event.type === 'node') this.#setNodes();
    });
  }

  /** The nodes that can stand behind a balancer. */
  get nodes(): readonly NodeRecord[] {
    return this.#registry.nodes().filter(({ edge }) => edge !== undefined);
  }

  get hosts(): Iterable<string> {
    return this.#routes.keys();
  }

  get size(): number {
    return this.#routes.size;
  }

  /** The nodes that hold agents for this host and take visitors. */
  ownersOf(host: string): readonly NodeId[] {
    const route = this.#routes.get(host);
    return route === undefined ? [] : ownersOf(route, (nodeId) => this.#usable.has(nodeId));
  }

  /** The node that agents ask for by each server name. */
  get serverNames(): ReadonlyMap<string, NodeId> {
    const names = new Map<string, NodeId>();
    for (const { serverName, nodeId } of this.nodes) {
      const name = serverName?.toLowerCase();
      if (name !== undefined && SAFE_NAME.test(name)) names.set(name, nodeId);
    }
    return names;
  }

  onChange(listener: (change: ViewChange) => void): void {
    this.#listeners.add(listener);
  }

  close(): void {
    this.#unsubscribe();
    this.#listeners.clear();
  }

  #setRoute(name: string, route: Route | undefined): void {
    if (!SAFE_NAME.test(name)) return;
    const host = name.includes('.') ? name : `${name}.${this.#baseDomain}`;
    if (route === undefined) this.#routes.delete(host);
    else this.#routes.set(host, route);
    this.#notify({ host });
  }

  #setNodes(): void {
    this.#usable = new Set(this.nodes.filter(({ state }) => state === 'up').map(({ nodeId }) => nodeId));
    this.#notify('nodes');
  }

  #notify(change: ViewChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}
