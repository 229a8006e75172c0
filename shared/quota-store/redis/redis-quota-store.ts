import { join } from 'node:path';
import type { Logger } from '../../observability/logger.ts';
import { connectCommands, type Link, type RedisAddress, unavailable } from '../../redis/connection.ts';
import { numberAt, type Reply, type ScriptArgument, ScriptSet } from '../../redis/script-set.ts';
import {
  AHEAD_SHARE,
  type Draw,
  type Drawn,
  type Hold,
  type Month,
  type QuotaStore,
  type Usage,
  type UsageAddition,
} from '../quota-store.ts';
import { bucketKey, permitKey, USAGE_KEPT, usageKey } from './keys.ts';

const SCRIPTS = { draw: 'any', hold: 1, use: 1 } as const;
/** A source that added nothing for so long is forgotten, milliseconds. No answer is waited for longer. */
const SOURCE_KEPT = 3_600_000;

export interface RedisQuotaStoreOptions {
  readonly redis: RedisAddress;
  readonly logger: Logger;
  /** Milliseconds that one command may take. Default 500: later, a node helps itself. */
  readonly commandTimeout?: number;
}

/** Connects in the background, over a connection of its own; until it is connected every call fails at once. */
export class RedisQuotaStore implements QuotaStore {
  readonly #link: Omit<Link, 'events'>;
  readonly #scripts: ScriptSet<keyof typeof SCRIPTS>;

  constructor({ redis, logger, commandTimeout = 500 }: RedisQuotaStoreOptions) {
    this.#link = connectCommands(redis, commandTimeout, logger, 'limits');
    this.#scripts = new ScriptSet(this.#link.commands, 'culvert_quota', join(import.meta.dirname, 'scripts'), SCRIPTS);
  }

  async draw(accountId: string, draws: readonly Draw[]): Promise<readonly Drawn[]> {
    const keys = draws.map(({ bucket }) => bucketKey(accountId, bucket));
    const numbers = draws.flatMap(({ rate, burst, used, want, need }) => [rate, burst, used, want, need]);
    const reply = await this.#run('draw', keys, [AHEAD_SHARE, ...numbers]);
    return draws.map((_, i) => ({ granted: numberAt(reply, 2 * i), level: numberAt(reply, 2 * i + 1) }));
  }

  async hold(accountId: string, { permit, holder, limit, inUse, want, ttl }: Hold): Promise<number> {
    const args = [holder, limit, inUse, want, ttl];
    return numberAt(await this.#run('hold', [permitKey(accountId, permit)], args), 0);
  }

  async addUsage(accountId: string, { month, source, sequence, delta, known }: UsageAddition): Promise<Usage> {
    const amounts = [delta.requests, known.requests, delta.bytesIn, known.bytesIn, delta.bytesOut, known.bytesOut];
    const args = [source, sequence, USAGE_KEPT, SOURCE_KEPT, ...amounts];
    const reply = await this.#run('use', [usageKey(accountId, month)], args);
    return { requests: numberAt(reply, 0), bytesIn: numberAt(reply, 1), bytesOut: numberAt(reply, 2) };
  }

  async usage(accountId: string, month: Month): Promise<Usage> {
    try {
      const found = await this.#link.commands.hmget(usageKey(accountId, month), 'requests', 'in', 'out');
      const [requests = null, bytesIn = null, bytesOut = null] = found;
      return { requests: Number(requests ?? 0), bytesIn: Number(bytesIn ?? 0), bytesOut: Number(bytesOut ?? 0) };
    } catch (error) {
      throw unavailable(error);
    }
  }

  close(): void {
    this.#link.close();
  }

  async #run(name: keyof typeof SCRIPTS, keys: readonly string[], args: readonly ScriptArgument[]): Promise<Reply> {
    try {
      return await this.#scripts.run(name, keys, args);
    } catch (error) {
      throw unavailable(error);
    }
  }
}
