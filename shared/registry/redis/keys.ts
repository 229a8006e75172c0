import { createHash } from 'node:crypto';
import type { SessionId } from '../registry.ts';

/** Where everything lies in Redis. KEYS.md beside this file says what each key holds. */

export const PREFIX = 'culvert:v1:';
/** Routing data is cut into this many parts, each with its own hash tag, version and generation. Never changes within v1. */
export const SHARDS = 16;
/** Events of every shard; Redis Cluster carries a message to all nodes, whichever published it. */
export const EVENTS = `${PREFIX}events`;

const NODES = `${PREFIX}{nodes}:`;
export const NODE_KEYS = {
  meta: `${NODES}meta`,
  leases: `${NODES}leases`,
  dead: `${NODES}dead`,
} as const;

/** The shard of a name, an account or an agent. By a digest, so that similar names spread. */
export function shardOf(id: string): number {
  return (createHash('sha1').update(id).digest()[0] ?? 0) % SHARDS;
}

export function metaKey(shard: number): string {
  return tagged(shard, 'meta');
}

export function routesKey(shard: number): string {
  return tagged(shard, 'routes');
}

export function sessionsKey(shard: number): string {
  return tagged(shard, 'sessions');
}

export function fenceKey(shard: number, name: string): string {
  return tagged(shard, `fence:${part(name)}`);
}

export function accountSessionsKey(shard: number, account: string): string {
  return tagged(shard, `account:${part(account)}:sessions`);
}

export function accountNamesKey(shard: number, account: string): string {
  return tagged(shard, `account:${part(account)}:names`);
}

export function heldKey(shard: number, id: SessionId): string {
  return tagged(shard, `held:${part(id)}`);
}

export function agentKey(shard: number, agentId: string): string {
  return tagged(shard, `agent:${part(agentId)}`);
}

function tagged(shard: number, rest: string): string {
  return `${PREFIX}{${shard}}:${rest}`;
}

/** Escaped, so that no id can end its part of the key and imitate another key. */
function part(id: string): string {
  return encodeURIComponent(id.toWellFormed());
}
