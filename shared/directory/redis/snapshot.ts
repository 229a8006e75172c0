import { z } from 'zod';
import type { RedisClient } from '../../redis/connection.ts';
import { KINDS, type Kind } from '../records.ts';
import type { StoredRecord } from '../replica.ts';
import { KEYS, RECORDS } from './keys.ts';
import { parseStored } from './scripts.ts';

export type Snapshot = Readonly<Record<Kind, Map<string, StoredRecord>>>;

/** A change that every node hears of. */
export interface DirectoryMessage {
  readonly generation: string;
  /** 0 says that a generation began. */
  readonly n: number;
  /** Of the newest change. */
  readonly version: number;
  readonly kind: Kind | undefined;
  readonly id: string;
  readonly stored: StoredRecord | undefined;
}

const Head = z.tuple([z.string(), z.number(), z.string(), z.string(), z.string()]);
const Pages = z.tuple([z.string(), z.array(z.string())]);
/** Records that one command reads. */
const PAGE = 500;
const RECENT = KEYS[7];

/**
 * Everything, in pages, so that Redis serves others meanwhile. What changes while it is read may be there or not: the events from
 * before the first page on have to be applied to it.
 */
export async function readAll(client: RedisClient): Promise<Snapshot> {
  const snapshot: Snapshot = { account: new Map(), agent: new Map(), key: new Map(), revocation: new Map() };
  for (const kind of KINDS) {
    for (let cursor = ''; cursor !== '0'; ) {
      const [next, flat] = Pages.parse(await client.hscan(RECORDS[kind], cursor || '0', 'COUNT', PAGE));
      for (let at = 0; at + 1 < flat.length; at += 2)
        snapshot[kind].set(flat[at] ?? '', parseStored(flat[at + 1] ?? ''));
      cursor = next;
    }
  }
  return snapshot;
}

/** The events behind number `n` that Redis still has, oldest first. @param count how many there should be */
export async function readRecent(client: RedisClient, n: number, count: number): Promise<DirectoryMessage[]> {
  // Some more, for others may come before this is read.
  const texts = await client.lrange(RECENT, 0, count + PAGE);
  return texts.map(parseMessage).reverse().filter((message) => message.n > n); // biome-ignore format: one line
}

/** @throws when the text is no message */
export function parseMessage(text: string): DirectoryMessage {
  const end = text.indexOf('\n');
  const [generation, n, version, kind, id] = Head.parse(JSON.parse(end === -1 ? text : text.slice(0, end)));
  const payload = end === -1 ? '' : text.slice(end + 1);
  return {
    generation,
    n,
    version: Number(version),
    kind: KINDS.find((known) => known === kind),
    id,
    stored: payload === '' ? undefined : parseStored(payload),
  };
}
