import type { EventFeed } from '../event-feed.ts';
import { processOf, type RegistryEvent, type SessionId, type SessionRecord } from '../registry.ts';
import { SHARDS } from './keys.ts';
import { type StoredSession, sessionOf } from './records.ts';

interface Entry {
  readonly record: SessionRecord;
  /** The node whose lease it lives on. */
  readonly by: string;
  readonly incarnation: number;
  /** Whether that node is alive. */
  visible: boolean;
}

/** The node's copy of the sessions. What lives on a dead node is kept, as the store has it, but not shown. */
export class ReplicaSessions {
  readonly #feed: EventFeed<RegistryEvent>;
  readonly #isAlive: (by: string, incarnation: number) => boolean;
  readonly #byShard: readonly Map<SessionId, Entry>[] = Array.from({ length: SHARDS }, () => new Map());
  readonly #byNode = new Map<string, Map<SessionId, Entry>>();
  readonly #byProcess = new Map<string, Map<SessionId, Entry>>();
  #visible = 0;

  constructor(feed: EventFeed<RegistryEvent>, isAlive: (by: string, incarnation: number) => boolean) {
    this.#feed = feed;
    this.#isAlive = isAlive;
  }

  /** Those that are shown. */
  get size(): number {
    return this.#visible;
  }

  get(shard: number, id: SessionId): SessionRecord | undefined {
    return this.#byShard[shard]?.get(id)?.record;
  }

  /** Also those that are not shown. */
  by(nodeId: string): SessionRecord[] {
    return Array.from(this.#byNode.get(nodeId)?.values() ?? [], ({ record }) => record);
  }

  /** The others of the same process that are shown. */
  beside(id: SessionId): SessionRecord[] {
    const entries = [...(this.#byProcess.get(processOf(id))?.values() ?? [])];
    return entries.flatMap(({ record, visible }) => (visible && record.id !== id ? record : []));
  }

  owners(): Iterable<string> {
    return this.#byNode.keys();
  }

  *visible(): Generator<SessionRecord> {
    for (const shard of this.#byShard) for (const { record, visible } of shard.values()) if (visible) yield record;
  }

  set(shard: number, id: SessionId, stored: StoredSession | undefined): void {
    const sessions = this.#byShard[shard];
    const before = sessions?.get(id);
    const next = stored === undefined || stored.x === 1 ? undefined : this.#entry(stored);
    if (before !== undefined) {
      sessions?.delete(id);
      remove(this.#byNode, before.by, id);
      remove(this.#byProcess, processOf(id), id);
    }
    if (next !== undefined) {
      sessions?.set(id, next);
      add(this.#byNode, next.by, id, next);
      add(this.#byProcess, processOf(id), id, next);
    }
    this.#show(shown(before), shown(next));
  }

  replace(shard: number, stored: ReadonlyMap<SessionId, StoredSession>, keep: boolean): void {
    if (!keep) {
      for (const id of [...(this.#byShard[shard]?.keys() ?? [])]) if (!stored.has(id)) this.set(shard, id, undefined);
    }
    for (const [id, session] of stored) this.set(shard, id, session);
  }

  /** The node died, or lives after all. */
  refresh(nodeId: string): void {
    for (const entry of [...(this.#byNode.get(nodeId)?.values() ?? [])]) {
      const visible = this.#isAlive(entry.by, entry.incarnation);
      if (visible === entry.visible) continue;
      entry.visible = visible;
      this.#show(visible ? undefined : entry.record, shown(entry));
    }
  }

  #entry(stored: StoredSession): Entry {
    const { b: by, c: incarnation } = stored;
    return { record: sessionOf(stored), by, incarnation, visible: this.#isAlive(by, incarnation) };
  }

  #show(before: SessionRecord | undefined, now: SessionRecord | undefined): void {
    this.#visible += Number(now !== undefined) - Number(before !== undefined);
    if (now !== undefined && now.epoch !== before?.epoch) {
      this.#feed.publish({ type: 'session', session: now, isOpen: true });
    } else if (now === undefined && before !== undefined) {
      this.#feed.publish({ type: 'session', session: before, isOpen: false });
    }
  }
}

function add(index: Map<string, Map<SessionId, Entry>>, key: string, id: SessionId, entry: Entry): void {
  const entries = index.get(key) ?? new Map<SessionId, Entry>();
  index.set(key, entries.set(id, entry));
}

function remove(index: Map<string, Map<SessionId, Entry>>, key: string, id: SessionId): void {
  const entries = index.get(key);
  entries?.delete(id);
  if (entries?.size === 0) index.delete(key);
}

function shown(entry: Entry | undefined): SessionRecord | undefined {
  return entry?.visible ? entry.record : undefined;
}
