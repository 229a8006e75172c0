import type { CulvertError } from '../errors/codes.ts';
import type { FieldsOf, Kind, RecordOf } from './records.ts';

/**
 * The durable records of a cluster: accounts, agents, API keys and revocations. Every node has all of them in memory, so that no
 * check ever waits for a store; a change is one atomic step that the others hear of.
 * `directory.contract.ts` is the suite that every implementation passes.
 */
export interface Directory {
  /** From memory. */
  get<K extends Kind>(kind: K, id: string): RecordOf<K> | undefined;

  /**
   * True when the store holds something under this id that cannot be read. Whoever decides must then decide as if it refused.
   */
  isUnreadable(kind: Kind, id: string): boolean;

  /** In the order of their ids, from memory. */
  list<K extends Kind>(kind: K, page?: Page<K>): readonly RecordOf<K>[];

  /** How many there are of a kind. */
  count(kind: Kind): number;

  /**
   * Writes a record. When it resolves, this node's own memory has it.
   * @param expected version that the record has now; 0: there must be none yet
   * @throws CulvertError `conflict` when the record has another version or exists already; `not_found` when it is gone;
   * `quota_exceeded` when there are as many as a cluster may have (`LIMITS`); `bad_request` when the fields are not valid;
   * `registry_unavailable` when the store cannot be reached or its data is being restored
   */
  put<K extends Kind>(kind: K, id: string, fields: FieldsOf<K>, expected: number): Promise<RecordOf<K>>;

  /**
   * Removes a record.
   * @throws CulvertError as `put`; `conflict` also for an account that still has agents or keys
   */
  remove(kind: Kind, id: string, expected: number): Promise<void>;

  /** Undefined while changes work, else why they do not. */
  unavailable(): CulvertError | undefined;

  /** Undefined once this node has the records; before that nothing may be decided, so nothing is let in. */
  unloaded(): CulvertError | undefined;

  status(): DirectoryStatus;

  /** Calls `listener` for each later change, in order. Returns a function that stops it. */
  subscribe(listener: (event: DirectoryEvent) => void): () => void;

  close(): Promise<void>;
}

export interface Page<K extends Kind> {
  /** Only ids behind this one. */
  readonly after?: string;
  /** Records at most. Default all. */
  readonly limit?: number;
  readonly where?: (record: RecordOf<K>) => boolean;
}

export type DirectoryEvent =
  /** The record was written or removed: `get` gives what it is now. */
  | { readonly type: 'record'; readonly kind: Kind; readonly id: string }
  | { readonly type: 'status'; readonly status: DirectoryStatus };

export interface DirectoryStatus {
  /**
   * `loading`: this node has no records yet. `restoring`: the store's data is missing or old, and nodes put back what they hold.
   * `disconnected`: the store cannot be reached; checks go on from memory.
   */
  readonly state: 'loading' | 'ready' | 'restoring' | 'disconnected';
  /** Milliseconds since the Unix epoch of the last time at which memory was known to be in step with the store; 0 for never. */
  readonly inStepAt: number;
  /** Losses of the store's data that this node has seen. */
  readonly losses: number;
  readonly lastLoss: DirectoryLoss | undefined;
}

export interface DirectoryLoss {
  /** Milliseconds since the Unix epoch. */
  readonly at: number;
  /** The newest version that this node held. */
  readonly held: number;
  /** The newest version that the store still had; 0 for nothing. */
  readonly found: number;
  /** Records that this node put back or took out; undefined while it has not, and when another node did. */
  readonly restored: number | undefined;
}
