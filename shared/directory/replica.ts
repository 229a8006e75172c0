import { EventFeed } from '../registry/event-feed.ts';
import type { DirectoryEvent, Page } from './directory.ts';
import { decodeFields, type FieldsOf, KINDS, type Kind, type RecordOf } from './records.ts';

/** A record as a store has it. */
export interface StoredRecord {
  readonly version: number;
  readonly createdAt: number;
  /** Its fields. */
  readonly json: string;
}

interface Entry extends StoredRecord {
  /** Read when it is first asked for: most records of a large cluster never are on most nodes. */
  record: RecordOf<Kind> | 'unreadable' | undefined;
}

/** One node's copy of all records. */
export class DirectoryReplica {
  readonly feed = new EventFeed<DirectoryEvent>();
  readonly #entries: Readonly<Record<Kind, Map<string, Entry>>> = {
    account: new Map(),
    agent: new Map(),
    key: new Map(),
    revocation: new Map(),
  };
  /** Ids in order, made when a list is asked for. */
  readonly #sorted = new Map<Kind, readonly string[]>();

  get<K extends Kind>(kind: K, id: string): RecordOf<K> | undefined {
    const record = this.#read(kind, id);
    return record === 'unreadable' ? undefined : record;
  }

  isUnreadable(kind: Kind, id: string): boolean {
    return this.#read(kind, id) === 'unreadable';
  }

  list<K extends Kind>(kind: K, { after, limit = Number.POSITIVE_INFINITY, where }: Page<K> = {}): RecordOf<K>[] {
    const found: RecordOf<K>[] = [];
    const ids = this.#ids(kind);
    for (let at = after === undefined ? 0 : firstBehind(ids, after); at < ids.length && found.length < limit; at += 1) {
      const record = this.get(kind, ids[at] ?? '');
      if (record !== undefined && (where === undefined || where(record))) found.push(record);
    }
    return found;
  }

  count(kind: Kind): number {
    return this.#entries[kind].size;
  }

  stored(kind: Kind, id: string): StoredRecord | undefined {
    return this.#entries[kind].get(id);
  }

  /** All of a kind, as they are stored. */
  all(kind: Kind): ReadonlyMap<string, StoredRecord> {
    return this.#entries[kind];
  }

  /** @param stored undefined when it is gone */
  set(kind: Kind, id: string, stored: StoredRecord | undefined): void {
    const entries = this.#entries[kind];
    const before = entries.get(id);
    if (stored === undefined ? before === undefined : same(before, stored)) return;
    if (stored === undefined) entries.delete(id);
    else entries.set(id, { ...stored, record: undefined });
    if (stored === undefined || before === undefined) this.#sorted.delete(kind);
    this.feed.publish({ type: 'record', kind, id });
  }

  /** Takes over all records, telling listeners of what differs only. */
  replace(records: Readonly<Record<Kind, ReadonlyMap<string, StoredRecord>>>): void {
    for (const kind of KINDS) {
      for (const id of [...this.#entries[kind].keys()]) if (!records[kind].has(id)) this.set(kind, id, undefined);
      for (const [id, stored] of records[kind]) this.set(kind, id, stored);
    }
  }

  #read<K extends Kind>(kind: K, id: string): RecordOf<K> | 'unreadable' | undefined {
    const entry = this.#entries[kind].get(id);
    if (entry === undefined) return undefined;
    entry.record ??= decode(kind, id, entry);
    // An entry of this kind's map was decoded as this kind.
    return entry.record as RecordOf<K> | 'unreadable';
  }

  #ids(kind: Kind): readonly string[] {
    let ids = this.#sorted.get(kind);
    if (ids === undefined) {
      ids = [...this.#entries[kind].keys()].sort();
      this.#sorted.set(kind, ids);
    }
    return ids;
  }
}

function decode(kind: Kind, id: string, { version, createdAt, json }: StoredRecord): RecordOf<Kind> | 'unreadable' {
  const fields: FieldsOf<Kind> | undefined = decodeFields(kind, json);
  return fields === undefined ? 'unreadable' : Object.freeze({ ...fields, id, version, createdAt });
}

function same(a: StoredRecord | undefined, b: StoredRecord): boolean {
  return a !== undefined && a.version === b.version && a.json === b.json;
}

/** The index of the first id behind `after`. */
function firstBehind(ids: readonly string[], after: string): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ids[middle] ?? '') <= after) low = middle + 1;
    else high = middle;
  }
  return low;
}
