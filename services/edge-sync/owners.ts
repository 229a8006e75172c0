import type { NodeId, Route } from '../../shared/registry/registry.ts';
import { hash32 } from './hash.ts';

/** Nodes named for one tunnel. HAProxy spreads over them; an agent keeps as many sessions by default. */
const MAX_OWNERS = 2;

/**
 * The nodes that hold agents of the tunnel, at most two, in an order that changes only with them. Of more, each tunnel takes
 * the two that rank highest for its name (rendezvous hashing): the choice stays when others come and go, and differs
 * between tunnels. Nodes with healthy endpoints come before those with unhealthy ones only.
 * @param isUsable whether a balancer may send visitors to the node
 */
export function ownersOf(route: Route, isUsable: (nodeId: NodeId) => boolean): readonly NodeId[] {
  const healthy = holders(route, isUsable, true);
  const found = healthy.length > 0 ? healthy : holders(route, isUsable, false);
  if (found.length > MAX_OWNERS) {
    const rank = new Map(found.map((nodeId) => [nodeId, hash32(`${route.name} ${nodeId}`)]));
    found.sort((a, b) => (rank.get(b) ?? 0) - (rank.get(a) ?? 0) || (a < b ? -1 : 1));
    found.length = MAX_OWNERS;
  }
  return found.sort();
}

function holders({ endpoints }: Route, isUsable: (nodeId: NodeId) => boolean, healthy: boolean): NodeId[] {
  const found: NodeId[] = [];
  for (const endpoint of endpoints) {
    if (endpoint.healthy === healthy && !found.includes(endpoint.nodeId) && isUsable(endpoint.nodeId)) {
      found.push(endpoint.nodeId);
    }
  }
  return found;
}
