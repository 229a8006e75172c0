import { setImmediate as turn } from 'node:timers/promises';
import { z } from 'zod';
import { CulvertError } from '../../../shared/errors/codes.ts';

/** Lists that are searched, sorted and cut into pages here, so that whoever reads them never holds all of one. */

export const MAX_LIMIT = 500;
const DEFAULT_LIMIT = 100;
/** Entries that are looked at before other work gets its turn: under a millisecond. */
const STRIDE = 1000;

/** Query parameters of a list. @param keys by which it can be sorted; the first is the order without `sort` */
export function listQuery(keys: readonly [string, ...string[]]) {
  const orders: string[] = keys.flatMap((key) => [key, `-${key}`]);
  return z.strictObject({
    limit: z.coerce.number().pipe(z.int().min(1).max(MAX_LIMIT)).default(DEFAULT_LIMIT),
    cursor: z.string().max(2048).optional().meta({ description: '`next` of the page before, with the same sort.' }),
    search: z.string().max(128).optional().meta({ description: 'Part of a name or id, in any case.' }),
    sort: z.enum(orders).prefault(keys[0]).meta({ description: 'A minus sign in front turns the order round.' }),
  });
}

/** A page of a list. */
export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({
    items: z.array(item).max(MAX_LIMIT),
    total: z.int().min(0).meta({ description: 'Entries on all pages together.' }),
    next: z.string().nullable().meta({ description: 'The cursor of the next page; null on the last.' }),
  });
}

type Key = string | number;

export interface Listing<T> {
  readonly entries: Iterable<T>;
  readonly matches: (entry: T) => boolean;
  readonly sortKey: (entry: T) => Key;
  /** Unique: what decides between equal keys. */
  readonly id: (entry: T) => string;
}

export interface PageQuery {
  readonly limit: number;
  readonly cursor?: string | undefined;
  readonly sort: string;
}

export interface Page<T> {
  readonly items: T[];
  readonly total: number;
  readonly next: string | null;
}

type Ranked<T> = { readonly key: Key; readonly id: string; readonly entry: T };

/**
 * The page behind the cursor. Walks all entries, letting other work in between, and keeps two pages of candidates at most, so that
 * 20,000 entries cost no sort of 20,000. @throws CulvertError `bad_request` for a cursor that is not of this list and order
 */
export async function cutPage<T>(listing: Listing<T>, { limit, cursor, sort }: PageQuery): Promise<Page<T>> {
  const direction = sort.startsWith('-') ? -1 : 1;
  const after = cursor === undefined ? undefined : decodeCursor(cursor, sort);
  const order = (a: Omit<Ranked<T>, 'entry'>, b: Omit<Ranked<T>, 'entry'>): number =>
    direction * (compare(a.key, b.key) || compare(a.id, b.id));
  let kept: Ranked<T>[] = [];
  let last: Ranked<T> | undefined;
  let total = 0;
  let seen = 0;
  for (const entry of listing.entries) {
    seen += 1;
    if (seen % STRIDE === 0) await turn();
    if (!listing.matches(entry)) continue;
    total += 1;
    const ranked = { key: listing.sortKey(entry), id: listing.id(entry), entry };
    if ((after !== undefined && order(ranked, after) <= 0) || (last !== undefined && order(ranked, last) >= 0))
      continue;
    kept.push(ranked);
    if (kept.length >= 2 * (limit + 1)) {
      kept = kept.sort(order).slice(0, limit + 1);
      last = kept.at(-1);
    }
  }
  kept.sort(order);
  const page = kept.slice(0, limit);
  const end = page.at(-1);
  const next = kept.length > limit && end !== undefined ? encodeCursor(sort, end) : null;
  return { items: page.map(({ entry }) => entry), total, next };
}

/** Whether one of the texts holds what is searched for. */
export function searches(search: string | undefined): (...texts: readonly string[]) => boolean {
  if (search === undefined || search === '') return () => true;
  const wanted = search.toLowerCase();
  return (...texts) => texts.some((text) => text.toLowerCase().includes(wanted));
}

function compare(a: Key, b: Key): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

const Cursor = z.tuple([z.string(), z.union([z.string(), z.number()]), z.string()]);

function encodeCursor(sort: string, { key, id }: Omit<Ranked<unknown>, 'entry'>): string {
  return Buffer.from(JSON.stringify([sort, key, id])).toString('base64url');
}

function decodeCursor(cursor: string, sort: string): { readonly key: Key; readonly id: string } {
  try {
    const [of, key, id] = Cursor.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')));
    if (of === sort) return { key, id };
  } catch {
    // Told below, as is a cursor of another order.
  }
  throw new CulvertError('bad_request', 'query cursor: is not of this list in this order: begin without it');
}
