import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CulvertError } from '../errors/codes.ts';
import type { RedisClient } from './connection.ts';

export type ScriptArgument = string | number;
export type Reply = readonly unknown[];

/**
 * Lua scripts of one directory, each an atomic step. `prelude.lua` there is put in front of every other file. Redis keeps a
 * script by its digest, so only the first call of each sends its text.
 */
export class ScriptSet<Name extends string> {
  readonly #client: RedisClient;
  readonly #prefix: string;
  readonly #numberOfKeys: Readonly<Record<Name, number | 'any'>>;

  /**
   * @param prefix of the commands that the scripts become on the client: one for each directory
   * @param numberOfKeys by the name of the script; `any`: each call has as many as it gives
   */
  constructor(
    client: RedisClient,
    prefix: string,
    directory: string,
    numberOfKeys: Readonly<Record<Name, number | 'any'>>,
  ) {
    this.#client = client;
    this.#prefix = prefix;
    this.#numberOfKeys = numberOfKeys;
    const source = (name: string): string => readFileSync(join(directory, `${name}.lua`), 'utf8');
    const prelude = source('prelude');
    for (const [name, keys] of Object.entries<number | 'any'>(numberOfKeys)) {
      const lua = `${prelude}\n${source(name)}`;
      client.defineCommand(`${prefix}_${name}`, keys === 'any' ? { lua } : { lua, numberOfKeys: keys });
    }
  }

  /** @throws what Redis threw */
  async run(name: Name, keys: readonly string[], args: readonly ScriptArgument[]): Promise<Reply> {
    // ioredis adds the method at run time, unknown to its types.
    const method: unknown = Reflect.get(this.#client, `${this.#prefix}_${name}`);
    if (typeof method !== 'function') throw new CulvertError('internal_error', `the script ${name} is not defined`);
    const count = this.#numberOfKeys[name] === 'any' ? [keys.length] : [];
    const reply: unknown = await Reflect.apply(method, this.#client, [...count, ...keys, ...args]);
    if (!Array.isArray(reply)) throw new CulvertError('internal_error', `the script ${name} returned no list`);
    return reply;
  }
}

/** Redis gives numbers as integers or, beyond what Lua can tell apart, as strings. */
export function numberAt(reply: Reply, at: number): number {
  const value = Number(reply[at]);
  if (!Number.isFinite(value)) throw new CulvertError('internal_error', 'a script returned no number');
  return value;
}

export function stringAt(reply: Reply, at: number): string {
  const value = reply[at];
  if (typeof value !== 'string') throw new CulvertError('internal_error', 'a script returned no string');
  return value;
}

/** `{key, value, key, value, …}` as pairs. */
export function pairsAt(reply: Reply, at: number): [string, string][] {
  const flat: unknown = reply[at];
  if (!Array.isArray(flat)) throw new CulvertError('internal_error', 'a script returned no list');
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < flat.length; i += 2) pairs.push([String(flat[i]), String(flat[i + 1])]);
  return pairs;
}
