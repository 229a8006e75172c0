import { z } from 'zod';
import { CulvertError } from '../../errors/codes.ts';
import type { RedisClient } from '../../redis/connection.ts';
import { numberAt, type Reply, stringAt } from '../../redis/script-set.ts';
import {
  agentOf,
  type NodeId,
  type Route,
  type SessionClaim,
  type SessionId,
  type SessionRecord,
  type SessionRef,
  sessionId,
  type TunnelClaim,
} from '../registry.ts';
import * as keys from './keys.ts';
import type { Membership } from './membership.ts';
import type { Owned, OwnedSession } from './owned.ts';
import { endpointFor } from './rebuild.ts';
import { parseRoute, parseSession, routeOf, type StoredSession, sessionOf, storedSession } from './records.ts';
import type { Scripts } from './scripts.ts';
import type { Change, Withdrawal } from './withdrawal.ts';

/** Openings of one session id that may outrun each other before one gives up. */
const MAX_ATTEMPTS = 10;
/** An agent's index may be this much ahead of the session's record, milliseconds; older, it was left by a crash. */
const INDEX_GRACE = 60_000;

const AgentEntry = z.object({ a: z.string(), p: z.number() });

export interface ClaimsOptions {
  readonly client: RedisClient;
  readonly scripts: Scripts;
  readonly owned: Owned;
  readonly membership: Membership;
  readonly withdrawal: Withdrawal;
  readonly nodeId: NodeId;
  /** Resolves when the node's own replica has the change. */
  readonly applied: (change: Change) => Promise<void>;
}

/** The steps of each claim. A step that fails leaves nothing behind, or what the audit and the janitor find. */
export class Claims {
  readonly #options: ClaimsOptions;
  readonly #opening = new Map<SessionId, Promise<SessionRecord>>();
  /** One change of a session's name at a time, so that taking one back cannot undo the next. */
  readonly #busy = new Map<string, Promise<unknown>>();

  constructor(options: ClaimsOptions) {
    this.#options = options;
  }

  /** Settles with the claim of this session id that is under way. */
  opening(id: SessionId): Promise<SessionRecord> | undefined {
    return this.#opening.get(id);
  }

  async openSession(claim: SessionClaim): Promise<SessionRecord> {
    const id = sessionId(claim.agentId, claim.instanceId, claim.slot);
    const opening = this.#open(id, claim);
    this.#opening.set(id, opening);
    try {
      return await opening;
    } finally {
      if (this.#opening.get(id) === opening) this.#opening.delete(id);
    }
  }

  async closeSession(session: SessionRef): Promise<void> {
    const { owned, withdrawal } = this.#options;
    const mine = owned.get(session);
    owned.delete(session);
    await mine?.restoring?.catch(() => {});
    const accountId = mine?.record.accountId ?? (await this.#accountOf(session.id));
    if (accountId === undefined) return;
    await this.#applied(await withdrawal.close(accountId, session, [...(mine?.tunnels.keys() ?? [])]));
  }

  register(session: SessionRef, tunnel: TunnelClaim, limit: number): Promise<Route> {
    return this.#inTurn(session, tunnel.name, () => this.#register(session, tunnel, limit));
  }

  unregister(session: SessionRef, name: string): Promise<void> {
    return this.#inTurn(session, name, () => this.#unregister(session, name));
  }

  async byAgent(agentId: string): Promise<SessionRecord[]> {
    const { client, scripts } = this.#options;
    const index = await client.hgetall(keys.agentKey(keys.shardOf(agentId), agentId));
    const byAccount = new Map<string, { id: SessionId; epoch: number }[]>();
    for (const [id, json] of Object.entries(index)) {
      const { a, p } = AgentEntry.parse(JSON.parse(json));
      const entries = byAccount.get(a) ?? [];
      entries.push({ id: id as SessionId, epoch: p });
      byAccount.set(a, entries);
    }
    const found: SessionRecord[] = [];
    for (const [account, entries] of byAccount) {
      const at = keys.sessionsKey(keys.shardOf(account));
      const records = await client.hmget(at, ...entries.map(({ id }) => id));
      for (const [i, entry] of entries.entries()) {
        const stored = liveSession(records[i]);
        if (stored !== undefined) found.push(sessionOf(stored));
        else if (entry.epoch < Date.now() - INDEX_GRACE) await scripts.disown(agentId, entry);
      }
    }
    return found;
  }

  async byAccount(accountId: string): Promise<Route[]> {
    const { client } = this.#options;
    const names = await client.hkeys(keys.accountNamesKey(keys.shardOf(accountId), accountId));
    const byShard = Map.groupBy(names, keys.shardOf);
    const lists = await Promise.all(
      Array.from(byShard, async ([shard, group]) => {
        const routes = await client.hmget(keys.routesKey(shard), ...group);
        return routes.flatMap((json, i) => (json === null ? [] : [routeOf(group[i] ?? '', parseRoute(json))]));
      }),
    );
    return lists.flat().filter((route) => route.accountId === accountId);
  }

  async fetch(name: string): Promise<string | null> {
    return this.#options.client.hget(keys.routesKey(keys.shardOf(name)), name);
  }

  async #open(id: SessionId, claim: SessionClaim): Promise<SessionRecord> {
    const { scripts, owned, membership, nodeId } = this.#options;
    const { agentId, accountId, instanceId, slot } = claim;
    let floor = 0;
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
      const own = await scripts.own(agentId, id, accountId, floor);
      if (stringAt(own, 0) === 'taken' && (await this.#takeLeftover(id, own))) continue;
      refuse(own, 'taken', () => new CulvertError('tunnel_taken', `the session ${id} belongs to another account`));
      const epoch = numberAt(own, 1);
      const openedAt = numberAt(own, 2);
      const record = { id, epoch, agentId, accountId, instanceId, slot, nodeId: claim.nodeId, openedAt };
      const stored = storedSession(record, nodeId, membership.incarnation);
      const opened = await scripts.open(id, stored, claim.maxSessionsPerAccount);
      const outcome = stringAt(opened, 0);
      if (outcome === 'ok') {
        owned.add(Object.freeze(record));
        await this.#applied([changeOf(keys.shardOf(accountId), opened)]);
        return record;
      }
      if (outcome === 'older') {
        floor = numberAt(opened, 1);
        continue;
      }
      await scripts.disown(agentId, record);
      refuse(opened, 'taken', () => new CulvertError('tunnel_taken', `the session ${id} belongs to another account`));
      throw new CulvertError(
        'quota_exceeded',
        `the account has ${claim.maxSessionsPerAccount} agent connections already`,
      );
    }
    throw new CulvertError('session_replaced', `others claim the session ${id} at the same time`);
  }

  /** Frees a session id that another account left behind in the index. */
  async #takeLeftover(id: SessionId, own: Reply): Promise<boolean> {
    const { client, scripts } = this.#options;
    const epoch = numberAt(own, 2);
    if (epoch > Date.now() - INDEX_GRACE) return false;
    const record = await client.hget(keys.sessionsKey(keys.shardOf(stringAt(own, 1))), id);
    if (record !== null) return false;
    await scripts.disown(agentOf(id), { id, epoch });
    return true;
  }

  async #register(session: SessionRef, tunnel: TunnelClaim, limit: number): Promise<Route> {
    const { scripts, owned } = this.#options;
    const mine = owned.get(session);
    await mine?.restoring?.catch(() => {});
    const { record, by, incarnation } = await this.#holder(session, mine);
    const { accountId } = record;
    const { name } = tunnel;
    const before = mine?.tunnels.get(name);
    // Before the first write: the audit must not take out what is being claimed.
    mine?.tunnels.set(name, { claim: tunnel, createdAt: before?.createdAt, due: false });
    try {
      const reserved = await scripts.reserve(accountId, session, name, limit);
      refuse(reserved, 'replaced', () => replaced(session));
      refuse(reserved, 'quota', () => new CulvertError('quota_exceeded', `the account has ${limit} tunnels already`));
      const claimed = await scripts.claim(name, accountId, endpointFor(record, tunnel, by, incarnation));
      const outcome = stringAt(claimed, 0);
      if (outcome !== 'ok') {
        if (outcome !== 'rebuilding' || numberAt(reserved, 1) === 0) await scripts.drop(accountId, session, [name]);
        refuse(claimed, 'taken', () => taken(name));
        throw replaced(session);
      }
      const stored = parseRoute(stringAt(claimed, 3));
      const kept = mine?.tunnels.get(name);
      if (kept !== undefined) kept.createdAt = stored.c;
      await this.#applied([changeOf(keys.shardOf(name), claimed)]);
      return routeOf(name, stored);
    } catch (error) {
      if (before === undefined) mine?.tunnels.delete(name);
      else mine?.tunnels.set(name, before);
      throw error;
    }
  }

  async #unregister(session: SessionRef, name: string): Promise<void> {
    const { client, scripts, owned, withdrawal } = this.#options;
    const mine = owned.get(session);
    mine?.tunnels.delete(name);
    await mine?.restoring?.catch(() => {});
    const accountId = mine?.record.accountId ?? (await this.#accountOf(session.id));
    if (accountId === undefined) return;
    const shard = keys.shardOf(accountId);
    const [record, held] = await Promise.all([
      client.hget(keys.sessionsKey(shard), session.id),
      client.hexists(keys.heldKey(shard, session.id), name),
    ]);
    if (liveSession(record)?.p !== session.epoch || held === 0) return;
    const change = await withdrawal.release(name, session, false);
    await scripts.drop(accountId, session, [name]);
    await this.#applied([change]);
  }

  /** Whose session this is, and on whose lease it lives. @throws CulvertError `session_replaced` */
  async #holder(
    session: SessionRef,
    mine: OwnedSession | undefined,
  ): Promise<{ record: SessionRecord; by: string; incarnation: number }> {
    const { client, nodeId, membership } = this.#options;
    if (mine !== undefined) return { record: mine.record, by: nodeId, incarnation: membership.incarnation };
    const accountId = await this.#accountOf(session.id);
    if (accountId === undefined) throw replaced(session);
    const stored = liveSession(await client.hget(keys.sessionsKey(keys.shardOf(accountId)), session.id));
    if (stored?.p !== session.epoch) throw replaced(session);
    return { record: sessionOf(stored), by: stored.b, incarnation: stored.c };
  }

  async #accountOf(id: SessionId): Promise<string | undefined> {
    const agentId = agentOf(id);
    const json = await this.#options.client.hget(keys.agentKey(keys.shardOf(agentId), agentId), id);
    return json === null ? undefined : AgentEntry.parse(JSON.parse(json)).a;
  }

  async #inTurn<T>(session: SessionRef, name: string, action: () => Promise<T>): Promise<T> {
    const key = `${session.id} ${name}`;
    const before = this.#busy.get(key);
    const turn = before === undefined ? action() : before.then(action, action);
    this.#busy.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#busy.get(key) === turn) this.#busy.delete(key);
    }
  }

  async #applied(changes: readonly Change[]): Promise<void> {
    await Promise.all(changes.filter(({ version }) => version > 0).map(this.#options.applied));
  }
}

function changeOf(shard: number, reply: Reply): Change {
  return { shard, generation: stringAt(reply, 1), version: numberAt(reply, 2) };
}

function liveSession(json: string | null | undefined): StoredSession | undefined {
  if (json === null || json === undefined) return undefined;
  const stored = parseSession(json);
  return stored.x === 1 ? undefined : stored;
}

/** @throws what `error` makes when the script's outcome is `outcome`; `registry_unavailable` while data is rebuilt */
function refuse(reply: Reply, outcome: string, error: () => CulvertError): void {
  if (reply[0] === outcome) throw error();
  if (reply[0] === 'rebuilding') throw rebuilding(numberAt(reply, 1));
}

export function rebuilding(ms: number): CulvertError {
  return new CulvertError(
    'registry_unavailable',
    `the registry is being rebuilt and takes claims in ${Math.ceil(ms)} ms`,
  );
}

function replaced(session: SessionRef): CulvertError {
  return new CulvertError('session_replaced', `the session ${session.id} is closed or a newer one took over`);
}

function taken(name: string): CulvertError {
  return new CulvertError('tunnel_taken', `the tunnel name ${JSON.stringify(name)} belongs to another account`);
}
