import { lookup } from 'node:dns/promises';
import { isIP, SocketAddress } from 'node:net';
import type { NodeRecord } from '../../shared/registry/registry.ts';
import type { SlotTarget } from './slots.ts';

/** Where nodes are: HAProxy's servers need IP addresses, nodes may tell names. */

/** A name is looked up again after so long, milliseconds: a container gets another address when it is made anew. */
const RESOLVE_INTERVAL = 10_000;
/** A resolver that is slower than that is asked again later. */
const RESOLVE_TIMEOUT = 2000;

interface Resolved {
  readonly address: string;
  readonly at: number;
}

export class Targets {
  readonly #resolved = new Map<string, Resolved>();
  readonly #resolving = new Set<string>();
  readonly #onChange: () => void;

  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** The nodes whose address is known, by address; starts to look up the others and calls back when it has found them. */
  of(nodes: readonly NodeRecord[]): SlotTarget[] {
    const byAddress = new Map<string, { newest: NodeRecord; target: SlotTarget }>();
    const hosts = new Set<string>();
    for (const node of nodes.toSorted((a, b) => (a.nodeId < b.nodeId ? -1 : 1))) {
      if (node.edge === undefined) continue;
      const { host, publicPort, agentPort, healthPort } = node.edge;
      hosts.add(host);
      const address = this.#addressOf(host);
      if (address === undefined) continue;
      const key = `${address} ${publicPort}`;
      const before = byAddress.get(key);
      const isNewer = before === undefined || node.startedAt > before.newest.startedAt;
      const nodeIds = [...(before?.target.nodeIds ?? []), node.nodeId];
      const draining = node.state === 'draining';
      byAddress.set(
        key,
        isNewer
          ? { newest: node, target: { nodeIds, address, publicPort, agentPort, healthPort, draining } }
          : { newest: before.newest, target: { ...before.target, nodeIds } },
      );
    }
    for (const host of this.#resolved.keys()) if (!hosts.has(host)) this.#resolved.delete(host);
    return Array.from(byAddress.values(), ({ target }) => target);
  }

  #addressOf(host: string): string | undefined {
    // HAProxy prints addresses in their usual form; another spelling would look like another address.
    const family = isIP(host);
    if (family !== 0) return new SocketAddress({ address: host, family: family === 6 ? 'ipv6' : 'ipv4' }).address;
    const known = this.#resolved.get(host);
    if (known === undefined || performance.now() - known.at > RESOLVE_INTERVAL) void this.#resolve(host);
    return known?.address;
  }

  /** Keeps the old address when the name cannot be looked up: a resolver that is away says nothing of the node. */
  async #resolve(host: string): Promise<void> {
    if (this.#resolving.has(host)) return;
    this.#resolving.add(host);
    try {
      const { address } = await Promise.race([lookup(host), timeout(RESOLVE_TIMEOUT)]);
      const before = this.#resolved.get(host)?.address;
      this.#resolved.set(host, { address, at: performance.now() });
      if (address !== before) this.#onChange();
    } catch {
      const before = this.#resolved.get(host);
      if (before !== undefined) this.#resolved.set(host, { ...before, at: performance.now() });
    } finally {
      this.#resolving.delete(host);
    }
  }
}

function timeout(milliseconds: number): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(reject, milliseconds, new Error('the resolver did not answer in time')).unref();
  });
}
