import { numberAt, stringAt } from '../../redis/script-set.ts';
import { agentOf, type SessionRef } from '../registry.ts';
import { shardOf } from './keys.ts';
import type { Scripts } from './scripts.ts';

/** A change of a shard, for who waits until the replica has it. */
export interface Change {
  readonly shard: number;
  readonly generation: string;
  /** 0 when nothing changed. */
  readonly version: number;
}

/** Takes sessions out of the store, step by step; each step may be done again. */
export class Withdrawal {
  readonly #scripts: Scripts;

  constructor(scripts: Scripts) {
    this.#scripts = scripts;
  }

  /**
   * @param names released beside those that the store knows of: it may have lost them
   * @param dead only when the session is of this or an older incarnation of its node. That node may only have lost Redis: when
   * it is back, the same session may claim its names again
   * @throws what Redis threw
   */
  async close(
    accountId: string,
    session: SessionRef,
    names: readonly string[],
    dead?: { readonly nodeId: string; readonly incarnation: number },
  ): Promise<Change[]> {
    const reply = await this.#scripts.closing(accountId, session, dead?.incarnation);
    if (stringAt(reply, 0) === 'stale') return [];
    const ended = { shard: shardOf(accountId), generation: stringAt(reply, 1), version: numberAt(reply, 2) };
    const held = new Set([...names, ...reply.slice(3).map(String)]);
    await this.#scripts.disown(agentOf(session.id), session);
    const changes: Change[] = [];
    if (dead === undefined) {
      changes.push(...(await Promise.all(Array.from(held, (name) => this.release(name, session, true)))));
    } else {
      await Promise.all(Array.from(held, (name) => this.#scripts.sweep(name, dead.nodeId, dead.incarnation)));
    }
    // Last: until here the janitor would find the session and do the rest.
    await this.#scripts.closed(accountId, session);
    return [ended, ...changes];
  }

  /** @param ended the session is over, so its claims that are still on their way come too late */
  async release(name: string, session: SessionRef, ended: boolean): Promise<Change> {
    const reply = await this.#scripts.release(name, session, ended);
    return { shard: shardOf(name), generation: stringAt(reply, 1), version: numberAt(reply, 2) };
  }
}
