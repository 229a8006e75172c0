import { join } from 'node:path';
import type { RedisClient } from '../../redis/connection.ts';
import { type Reply, type ScriptArgument, ScriptSet } from '../../redis/script-set.ts';
import type { SessionId, SessionRef } from '../registry.ts';
import * as keys from './keys.ts';
import type { StoredEndpoint, StoredSession } from './records.ts';

/** The atomic transitions, one Lua file each; what they do and return stands at the top of each file. */

const NUMBER_OF_KEYS = {
  own: 2,
  disown: 1,
  open: 3,
  reserve: 4,
  drop: 2,
  claim: 3,
  release: 3,
  sweep: 2,
  closing: 4,
  closed: 3,
  probe: 1,
  snapshot: 3,
  beat: 3,
  declare: 3,
  leave: 3,
  bury: 1,
} as const;
type ScriptName = keyof typeof NUMBER_OF_KEYS;

/** A late claim of a session that ended cannot be on its way for longer than this, milliseconds. */
const FENCE_MS = 60_000;
/** Instead of a limit: what is written was claimed before and is published again. */
const RESTORE = -1;

export class Scripts {
  readonly #scripts: ScriptSet<ScriptName>;
  readonly #lease: number;

  /** @param lease milliseconds */
  constructor(client: RedisClient, lease: number) {
    this.#scripts = new ScriptSet(client, 'culvert', join(import.meta.dirname, 'scripts'), NUMBER_OF_KEYS);
    this.#lease = lease;
  }

  /** @param restore epoch that was given before */
  own(agentId: string, id: SessionId, accountId: string, floor: number, restore?: number): Promise<Reply> {
    const shard = keys.shardOf(agentId);
    const at = [keys.metaKey(shard), keys.agentKey(shard, agentId)];
    return this.#run('own', at, [...this.#head(shard), id, accountId, floor, restore ?? '']);
  }

  disown(agentId: string, session: SessionRef): Promise<Reply> {
    return this.#run('disown', [keys.agentKey(keys.shardOf(agentId), agentId)], [session.id, session.epoch]);
  }

  open(id: SessionId, record: StoredSession, limit: number | undefined): Promise<Reply> {
    const shard = keys.shardOf(record.a);
    const at = [keys.metaKey(shard), keys.sessionsKey(shard), keys.accountSessionsKey(shard, record.a)];
    return this.#run('open', at, [...this.#head(shard), id, JSON.stringify(record), limitOf(limit)]);
  }

  reserve(accountId: string, session: SessionRef, name: string, limit: number | undefined): Promise<Reply> {
    const shard = keys.shardOf(accountId);
    const at = [
      keys.metaKey(shard),
      keys.sessionsKey(shard),
      keys.accountNamesKey(shard, accountId),
      keys.heldKey(shard, session.id),
    ];
    return this.#run('reserve', at, [...this.#head(shard), session.id, session.epoch, name, limitOf(limit)]);
  }

  drop(accountId: string, session: SessionRef, names: readonly string[]): Promise<Reply> {
    const shard = keys.shardOf(accountId);
    const at = [keys.accountNamesKey(shard, accountId), keys.heldKey(shard, session.id)];
    return this.#run('drop', at, [session.epoch, ...names]);
  }

  /** @param createdAt of a claim that is published again */
  claim(name: string, accountId: string, endpoint: StoredEndpoint, createdAt?: number): Promise<Reply> {
    const shard = keys.shardOf(name);
    const at = [keys.metaKey(shard), keys.routesKey(shard), keys.fenceKey(shard, name)];
    return this.#run('claim', at, [...this.#head(shard), name, accountId, JSON.stringify(endpoint), createdAt ?? '']);
  }

  /** @param ended the session is over, so its own epoch cannot claim the name again either */
  release(name: string, session: SessionRef, ended: boolean): Promise<Reply> {
    const shard = keys.shardOf(name);
    const at = [keys.metaKey(shard), keys.routesKey(shard), keys.fenceKey(shard, name)];
    const floor = ended ? session.epoch + 1 : session.epoch;
    return this.#run('release', at, [...this.#head(shard), name, session.id, session.epoch, floor, FENCE_MS]);
  }

  sweep(name: string, nodeId: string, incarnation: number): Promise<Reply> {
    const shard = keys.shardOf(name);
    const at = [keys.metaKey(shard), keys.routesKey(shard)];
    return this.#run('sweep', at, [...this.#head(shard), name, nodeId, incarnation]);
  }

  /** @param incarnation only when the session is of this or an older incarnation of its node */
  closing(accountId: string, session: SessionRef, incarnation?: number): Promise<Reply> {
    const shard = keys.shardOf(accountId);
    const at = [
      keys.metaKey(shard),
      keys.sessionsKey(shard),
      keys.accountSessionsKey(shard, accountId),
      keys.heldKey(shard, session.id),
    ];
    return this.#run('closing', at, [...this.#head(shard), session.id, session.epoch, incarnation ?? '']);
  }

  closed(accountId: string, session: SessionRef): Promise<Reply> {
    const shard = keys.shardOf(accountId);
    const at = [keys.sessionsKey(shard), keys.accountNamesKey(shard, accountId), keys.heldKey(shard, session.id)];
    return this.#run('closed', at, [session.id, session.epoch]);
  }

  probe(shard: number): Promise<Reply> {
    return this.#run('probe', [keys.metaKey(shard)], this.#head(shard));
  }

  snapshot(shard: number): Promise<Reply> {
    return this.#run(
      'snapshot',
      [keys.metaKey(shard), keys.routesKey(shard), keys.sessionsKey(shard)],
      this.#head(shard),
    );
  }

  beat(nodeId: string, incarnation: number, info: string, changed: boolean): Promise<Reply> {
    return this.#run('beat', NODES, [this.#lease, keys.EVENTS, nodeId, incarnation, info, changed ? 1 : 0]);
  }

  declare(nodeId: string, incarnation: number): Promise<Reply> {
    return this.#run('declare', NODES, [this.#lease, keys.EVENTS, nodeId, incarnation]);
  }

  leave(nodeId: string, incarnation: number): Promise<Reply> {
    return this.#run('leave', NODES, [this.#lease, keys.EVENTS, nodeId, incarnation]);
  }

  bury(nodeId: string, entry: string): Promise<Reply> {
    return this.#run('bury', [keys.NODE_KEYS.dead], [nodeId, entry]);
  }

  #head(shard: number): ScriptArgument[] {
    return [shard, this.#lease, keys.EVENTS];
  }

  #run(name: ScriptName, at: readonly string[], args: readonly ScriptArgument[]): Promise<Reply> {
    return this.#scripts.run(name, at, args);
  }
}

const NODES = [keys.NODE_KEYS.meta, keys.NODE_KEYS.leases, keys.NODE_KEYS.dead];

function limitOf(limit: number | undefined): number {
  return limit === undefined ? RESTORE : Math.min(Math.max(limit, 0), Number.MAX_SAFE_INTEGER);
}
