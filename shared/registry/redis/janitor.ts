import type { Logger } from '../../observability/logger.ts';
import type { RedisClient } from '../../redis/connection.ts';
import { stringAt } from '../../redis/script-set.ts';
import type { SessionId } from '../registry.ts';
import { routesKey, SHARDS, sessionsKey } from './keys.ts';
import type { Renewal } from './membership.ts';
import { parseRoute, parseSession } from './records.ts';
import type { Scripts } from './scripts.ts';
import type { Withdrawal } from './withdrawal.ts';

/** Milliseconds for which a dead incarnation is remembered: a node that was frozen for longer finds no lease instead. */
const REMEMBERED = 3_600_000;
/** Records that one HSCAN looks at. */
const PAGE = 500;

/**
 * Removes what dead nodes left behind. Runs on the node that leads; two leaders at once do no harm, since every removal names
 * an incarnation that can never come back and checks its record again.
 */
export class Janitor {
  readonly #client: RedisClient;
  readonly #scripts: Scripts;
  readonly #withdrawal: Withdrawal;
  readonly #lease: number;
  readonly #log: Logger;
  /** How often each dead incarnation was swept here. */
  readonly #swept = new Map<string, number>();
  #running = false;

  constructor(client: RedisClient, scripts: Scripts, withdrawal: Withdrawal, lease: number, log: Logger) {
    this.#client = client;
    this.#scripts = scripts;
    this.#withdrawal = withdrawal;
    this.#lease = lease;
    this.#log = log;
  }

  /** @throws what Redis threw */
  async run({ now, steady, leases, dead }: Renewal): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      if (steady >= this.#lease) {
        for (const { nodeId, incarnation, expiresAt } of leases) {
          if (expiresAt > now) continue;
          const reply = await this.#scripts.declare(nodeId, incarnation);
          if (stringAt(reply, 0) === 'ok') this.#log.warn({ node: nodeId }, 'a node is dead: its lease ran out');
        }
      }
      for (const [nodeId, entry] of dead) await this.#bury(nodeId, entry, now);
    } finally {
      this.#running = false;
    }
  }

  /** Twice: a write of the dead node may have been on its way during the first sweep. */
  async #bury(nodeId: string, entry: string, now: number): Promise<void> {
    const [incarnation = 0, since = 0] = entry.split(':').map(Number);
    const key = `${nodeId} ${entry}`;
    const times = this.#swept.get(key) ?? 0;
    const age = now - since;
    if (age > REMEMBERED) {
      this.#swept.delete(key);
      await this.#scripts.bury(nodeId, entry);
    } else if (times === 0 || (times === 1 && age > 2 * this.#lease)) {
      const removed = await this.#sweep(nodeId, incarnation);
      this.#swept.set(key, times + 1);
      if (removed > 0) this.#log.info({ node: nodeId, removed }, 'swept what a dead node left behind');
    }
  }

  async #sweep(nodeId: string, incarnation: number): Promise<number> {
    let removed = 0;
    for (let shard = 0; shard < SHARDS; shard += 1) {
      await this.#scan(routesKey(shard), async (name, json) => {
        if (!parseRoute(json).e.some(({ b, i }) => b === nodeId && i <= incarnation)) return;
        await this.#scripts.sweep(name, nodeId, incarnation);
        removed += 1;
      });
      await this.#scan(sessionsKey(shard), async (id, json) => {
        const { a, b, c, p } = parseSession(json);
        if (b !== nodeId || c > incarnation) return;
        await this.#withdrawal.close(a, { id: id as SessionId, epoch: p }, [], { nodeId, incarnation });
        removed += 1;
      });
    }
    return removed;
  }

  async #scan(key: string, visit: (field: string, value: string) => Promise<void>): Promise<void> {
    let cursor = '0';
    do {
      const [next, flat] = await this.#client.hscan(key, cursor, 'COUNT', PAGE);
      const visits: Promise<void>[] = [];
      for (let i = 0; i + 1 < flat.length; i += 2) visits.push(visit(String(flat[i]), String(flat[i + 1])));
      await Promise.all(visits);
      cursor = next;
    } while (cursor !== '0');
  }
}
