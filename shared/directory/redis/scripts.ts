import { join } from 'node:path';
import type { RedisClient } from '../../redis/connection.ts';
import { numberAt, type Reply, ScriptSet, stringAt } from '../../redis/script-set.ts';
import type { Kind } from '../records.ts';
import type { StoredRecord } from '../replica.ts';
import { EVENTS, KEYS } from './keys.ts';

/** The atomic transitions, one Lua file each; what they do and return stands at the top of each file. */

const NAMES = ['put', 'remove', 'probe', 'offer', 'restore', 'restored'] as const;
type ScriptName = (typeof NAMES)[number];

/** Where the data is. */
export interface Position {
  readonly generation: string;
  /** Of the last event. */
  readonly n: number;
  readonly version: number;
  /** Milliseconds until it opens for changes; 0 when it is open. */
  readonly opensIn: number;
  /** Nothing was missing up to this version when the generation began. */
  readonly found: number;
  readonly records: number;
}

export interface RestoredRecord {
  readonly kind: Kind;
  readonly id: string;
  /** Undefined: the node knows that it was removed. */
  readonly stored: StoredRecord | undefined;
}

export class Scripts {
  readonly #scripts: ScriptSet<ScriptName>;
  readonly #window: number;

  /** @param window milliseconds for which data that may have been lost takes no changes */
  constructor(client: RedisClient, window: number) {
    // All scripts get all keys: each must see whether records are missing.
    const numberOfKeys = Object.fromEntries(NAMES.map((name) => [name, KEYS.length])) as Record<ScriptName, number>;
    this.#scripts = new ScriptSet(client, 'directory', join(import.meta.dirname, 'scripts'), numberOfKeys);
    this.#window = window;
  }

  put(kind: Kind, id: string, expected: number, json: string, limit: number): Promise<Reply> {
    return this.#run('put', [kind, id, expected, json, limit]);
  }

  remove(kind: Kind, id: string, expected: number): Promise<Reply> {
    return this.#run('remove', [kind, id, expected]);
  }

  async probe(): Promise<Position> {
    const reply = await this.#run('probe', []);
    return {
      generation: stringAt(reply, 0),
      n: numberAt(reply, 1),
      version: numberAt(reply, 2),
      opensIn: numberAt(reply, 3),
      found: numberAt(reply, 4),
      records: numberAt(reply, 5),
    };
  }

  offer(by: string, version: number): Promise<Reply> {
    return this.#run('offer', [by, version]);
  }

  restore(by: string, version: number, records: readonly RestoredRecord[]): Promise<Reply> {
    const args = records.flatMap(({ kind, id, stored }) => [kind, id, stored === undefined ? '' : encode(stored)]);
    return this.#run('restore', [by, version, ...args]);
  }

  restored(by: string, version: number): Promise<Reply> {
    return this.#run('restored', [by, version]);
  }

  #run(name: ScriptName, args: readonly (string | number)[]): Promise<Reply> {
    return this.#scripts.run(name, KEYS, [this.#window, EVENTS, ...args]);
  }
}

function encode({ version, createdAt, json }: StoredRecord): string {
  return `${version}:${createdAt}:${json}`;
}

/** What is no record becomes one of version 0 that nothing can read, so that it refuses instead of being passed over. */
export function parseStored(text: string): StoredRecord {
  const [, version = '0', createdAt = '0', json = ''] = /^(\d+):(\d+):(.*)$/s.exec(text) ?? [];
  return { version: Number(version), createdAt: Number(createdAt), json };
}
