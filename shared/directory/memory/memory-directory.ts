import { CulvertError } from '../../errors/codes.ts';
import type { Directory, DirectoryEvent, DirectoryStatus, Page } from '../directory.ts';
import { encodeFields, type FieldsOf, type Kind, LIMITS, ownerOf, type RecordOf } from '../records.ts';
import { conflict, full, gone, notEmpty } from '../refusals.ts';
import { DirectoryReplica, type StoredRecord } from '../replica.ts';
import { Journal } from './journal.ts';

export interface MemoryDirectoryOptions {
  /** File that the records outlive the process in. Default: they do not. */
  readonly file?: string;
  /** Milliseconds since the Unix epoch. Default Date.now. */
  readonly clock?: () => number;
  /** Default LIMITS. */
  readonly limits?: Readonly<Record<Kind, number>>;
}

/** The directory of a node that is alone. @throws CulvertError `invalid_config` when the file cannot be used */
export async function createMemoryDirectory(options: MemoryDirectoryOptions = {}): Promise<Directory> {
  const directory = new MemoryDirectory(options);
  await directory.load();
  return directory;
}

class MemoryDirectory implements Directory {
  readonly #options: MemoryDirectoryOptions;
  readonly #replica = new DirectoryReplica();
  readonly #clock: () => number;
  readonly #limits: Readonly<Record<Kind, number>>;
  /** Agents and keys of each account. */
  readonly #members = new Map<string, number>();
  #journal: Journal | undefined;
  #version = 0;
  /** Changes are made one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #closed: CulvertError | undefined;

  constructor(options: MemoryDirectoryOptions) {
    this.#options = options;
    this.#clock = options.clock ?? Date.now;
    this.#limits = options.limits ?? LIMITS;
  }

  async load(): Promise<void> {
    if (this.#options.file === undefined) return;
    this.#journal = await Journal.open(this.#options.file, ({ kind, id, stored }) => {
      this.#version = Math.max(this.#version, stored?.version ?? 0);
      this.#set(kind, id, stored);
    });
  }

  get<K extends Kind>(kind: K, id: string): RecordOf<K> | undefined {
    return this.#replica.get(kind, id);
  }

  isUnreadable(kind: Kind, id: string): boolean {
    return this.#replica.isUnreadable(kind, id);
  }

  list<K extends Kind>(kind: K, page?: Page<K>): readonly RecordOf<K>[] {
    return this.#replica.list(kind, page);
  }

  count(kind: Kind): number {
    return this.#replica.count(kind);
  }

  put<K extends Kind>(kind: K, id: string, fields: FieldsOf<K>, expected: number): Promise<RecordOf<K>> {
    return this.#change(async () => {
      const json = encodeFields(kind, id, fields, this.#replica.get(kind, id));
      const before = this.#expect(kind, id, expected);
      if (before === undefined && this.#replica.count(kind) >= this.#limits[kind]) throw full(kind, this.#limits[kind]);
      const version = Math.max(this.#version + 1, this.#clock());
      await this.#write(kind, id, { version, createdAt: before?.createdAt ?? version, json });
      this.#version = version;
      const record = this.#replica.get(kind, id);
      if (record === undefined) throw new CulvertError('internal_error', `the ${kind} cannot be read back`);
      return record;
    });
  }

  remove(kind: Kind, id: string, expected: number): Promise<void> {
    return this.#change(async () => {
      this.#expect(kind, id, expected);
      if (kind === 'account' && (this.#members.get(id) ?? 0) > 0) throw notEmpty(id);
      await this.#write(kind, id, undefined);
    });
  }

  unavailable(): CulvertError | undefined {
    return this.#closed;
  }

  unloaded(): undefined {
    return undefined;
  }

  status(): DirectoryStatus {
    return { state: 'ready', inStepAt: this.#clock(), losses: 0, lastLoss: undefined };
  }

  subscribe(listener: (event: DirectoryEvent) => void): () => void {
    return this.#replica.feed.subscribe(listener);
  }

  async close(): Promise<void> {
    if (this.#closed !== undefined) return;
    this.#closed = new CulvertError('registry_unavailable', 'the directory is closed');
    this.#replica.feed.clear();
    await this.#last.catch(() => {});
    await this.#journal?.close();
  }

  #change<T>(action: () => Promise<T>): Promise<T> {
    const change = async (): Promise<T> => {
      if (this.#closed !== undefined) throw this.#closed;
      return action();
    };
    const done = this.#last.then(change, change);
    this.#last = done.catch(() => {});
    return done;
  }

  #expect(kind: Kind, id: string, expected: number): StoredRecord | undefined {
    const before = this.#replica.stored(kind, id);
    if (before === undefined && expected !== 0) throw gone(kind, id);
    if (before !== undefined && before.version !== expected) throw conflict(kind, id, expected);
    return before;
  }

  async #write(kind: Kind, id: string, stored: StoredRecord | undefined): Promise<void> {
    await this.#journal?.append({ kind, id, stored });
    this.#set(kind, id, stored);
  }

  #set(kind: Kind, id: string, stored: StoredRecord | undefined): void {
    this.#count(this.#ownerOf(kind, id), -1);
    this.#replica.set(kind, id, stored);
    this.#count(this.#ownerOf(kind, id), 1);
  }

  #ownerOf(kind: Kind, id: string): string | undefined {
    const record = this.#replica.get(kind, id);
    return record === undefined ? undefined : ownerOf(kind, record);
  }

  #count(accountId: string | undefined, change: number): void {
    if (accountId === undefined) return;
    const count = (this.#members.get(accountId) ?? 0) + change;
    if (count > 0) this.#members.set(accountId, count);
    else this.#members.delete(accountId);
  }
}
