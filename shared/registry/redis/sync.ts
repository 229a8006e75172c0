import { z } from 'zod';
import type { Logger } from '../../observability/logger.ts';
import { numberAt, pairsAt, stringAt } from '../../redis/script-set.ts';
import type { SessionId } from '../registry.ts';
import { SHARDS } from './keys.ts';
import { parseRoute, parseSession, type StoredRoute, type StoredSession } from './records.ts';
import type { Replica } from './replica.ts';
import type { Scripts } from './scripts.ts';

export interface SyncHandlers {
  /** A change of one session: what it is now ('' when it closed), as JSON. */
  readonly onSession: (shard: number, id: SessionId, payload: string) => void;
  readonly onRoute: (name: string, stored: StoredRoute | undefined) => void;
  /** The shard's data may be lost: publish again what this node holds. */
  readonly onGeneration: (shard: number) => void;
  /** All of the shard was read anew. */
  readonly onResync: (shard: number) => void;
  readonly onNodesChanged: () => void;
}

interface Shard {
  generation: string | undefined;
  version: number;
  /** Version that Redis had at the last probe: still missing at the next, an event was lost. */
  seen: number;
  /** When claims open, in milliseconds of `performance.now()`. */
  opensAt: number;
  /** The replica keeps what nodes have not published again yet. */
  rebuilding: boolean;
  reading: Promise<void> | undefined;
  /** Events that came while the shard was read. */
  backlog: Message[] | undefined;
  waiters: { readonly version: number; readonly done: () => void }[];
}

interface Message {
  readonly generation: string;
  readonly version: number;
  readonly kind: string;
  readonly id: string;
  readonly payload: string;
}

/** Events kept while a shard is read; beyond it the shard is read once more. */
const MAX_BACKLOG = 20_000;

const Head = z.tuple([z.number(), z.string(), z.number(), z.string(), z.string()]);

/** Keeps the replica in step: each shard's events have versions without gaps, and a gap makes the shard be read anew. */
export class Sync {
  readonly #scripts: Scripts;
  readonly #replica: Replica;
  readonly #handlers: SyncHandlers;
  readonly #log: Logger;
  readonly #shards: readonly Shard[] = Array.from({ length: SHARDS }, () => ({
    generation: undefined,
    version: 0,
    seen: 0,
    opensAt: 0,
    rebuilding: false,
    reading: undefined,
    backlog: undefined,
    waiters: [],
  }));

  constructor(scripts: Scripts, replica: Replica, handlers: SyncHandlers, log: Logger) {
    this.#scripts = scripts;
    this.#replica = replica;
    this.#handlers = handlers;
    this.#log = log;
  }

  /** Milliseconds until every shard takes claims; 0 when all do. A shard that opened is read once more before. */
  get opensIn(): number {
    const now = performance.now();
    return this.#shards.reduce(
      (longest, { opensAt, rebuilding }) => Math.max(longest, opensAt - now, rebuilding ? 1 : 0),
      0,
    );
  }

  get isRebuilding(): boolean {
    return this.#shards.some(({ rebuilding }) => rebuilding);
  }

  /** True once every shard was read. */
  get isLoaded(): boolean {
    return this.#shards.every(({ generation }) => generation !== undefined);
  }

  onMessage(text: string): void {
    const end = text.indexOf('\n');
    const [shardId, generation, version, kind, id] = Head.parse(JSON.parse(end === -1 ? text : text.slice(0, end)));
    if (shardId < 0) {
      this.#handlers.onNodesChanged();
      return;
    }
    const shard = this.#shards[shardId];
    if (shard === undefined) return;
    if (kind === 'gen') {
      this.#handlers.onNodesChanged();
      return;
    }
    const message = { generation, version, kind, id, payload: end === -1 ? '' : text.slice(end + 1) };
    if (shard.backlog !== undefined) {
      if (shard.backlog.length < MAX_BACKLOG) shard.backlog.push(message);
    } else if (!this.#apply(shardId, shard, message)) {
      this.#read(shardId).catch(() => {});
    }
  }

  /**
   * Compares each shard with Redis. @param certain a version that is behind is a gap now, not an event on its way
   * @throws what Redis threw
   */
  async probe(certain: boolean): Promise<void> {
    await Promise.all(this.#shards.map((shard, id) => this.#probe(id, shard, certain)));
  }

  /** Resolves when the replica has what Redis had at the call. @throws what Redis threw */
  async caughtUp(within: number): Promise<void> {
    await Promise.all(
      this.#shards.map(async (_, id) => {
        const reply = await this.#scripts.probe(id);
        await this.reached(id, stringAt(reply, 0), numberAt(reply, 1), within);
      }),
    );
  }

  /** Resolves when the replica has this version, or after `within` milliseconds: the next probe then finds the gap. */
  reached(id: number, generation: string, version: number, within: number): Promise<void> {
    const shard = this.#shards[id];
    if (shard === undefined || (shard.generation === generation && shard.version >= version)) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(done, within);
      timer.unref();
      shard.waiters.push({ version, done });
    });
  }

  close(): void {
    for (const shard of this.#shards) for (const { done } of shard.waiters.splice(0)) done();
  }

  async #probe(id: number, shard: Shard, certain: boolean): Promise<void> {
    const reply = await this.#scripts.probe(id);
    const generation = stringAt(reply, 0);
    const version = numberAt(reply, 1);
    const opensIn = numberAt(reply, 2);
    shard.opensAt = opensIn > 0 ? performance.now() + opensIn : 0;
    const lost = shard.version < (certain ? version : Math.min(shard.seen, version));
    shard.seen = version;
    if (generation !== shard.generation || lost || (shard.rebuilding && opensIn === 0)) await this.#read(id);
  }

  #read(id: number): Promise<void> {
    const shard = this.#shards[id];
    if (shard === undefined) return Promise.resolve();
    shard.reading ??= this.#readNow(id, shard).finally(() => {
      shard.reading = undefined;
      shard.backlog = undefined;
    });
    return shard.reading;
  }

  async #readNow(id: number, shard: Shard): Promise<void> {
    for (let again = true; again; ) {
      const backlog: Message[] = [];
      shard.backlog = backlog;
      const reply = await this.#scripts.snapshot(id);
      const generation = stringAt(reply, 0);
      const first = shard.generation === undefined;
      const lost = !first && shard.generation !== generation;
      shard.generation = generation;
      shard.version = numberAt(reply, 1);
      shard.seen = shard.version;
      const opensIn = numberAt(reply, 2);
      shard.opensAt = opensIn > 0 ? performance.now() + opensIn : 0;
      shard.rebuilding = opensIn > 0;
      if (lost) this.#log.warn({ shard: id, opensIn }, 'routing data may be lost; publishing it again');
      const routes = new Map(pairsAt(reply, 3).map(([name, json]) => [name, parseRoute(json)]));
      const sessions = new Map(
        pairsAt(reply, 4).map(([at, json]): [SessionId, StoredSession] => [at as SessionId, parseSession(json)]),
      );
      this.#replica.replaceRoutes(id, routes, shard.rebuilding);
      this.#replica.sessions.replace(id, sessions, shard.rebuilding);
      if (lost) this.#handlers.onGeneration(id);
      this.#handlers.onResync(id);
      again = backlog.length >= MAX_BACKLOG || !backlog.every((message) => this.#apply(id, shard, message));
      this.#wake(shard);
    }
  }

  /** False when an event before this one is missing. */
  #apply(id: number, shard: Shard, { generation, version, kind, id: of, payload }: Message): boolean {
    if (generation !== shard.generation) return false;
    if (version <= shard.version) return true;
    if (version !== shard.version + 1) return false;
    shard.version = version;
    if (kind === 'route') {
      const stored = payload === '' ? undefined : parseRoute(payload);
      this.#replica.setRoute(id, of, stored, shard.rebuilding);
      this.#handlers.onRoute(of, stored);
    } else {
      this.#handlers.onSession(id, of as SessionId, payload);
    }
    if (shard.backlog === undefined) this.#wake(shard);
    return true;
  }

  #wake(shard: Shard): void {
    if (shard.waiters.length === 0) return;
    const left: Shard['waiters'] = [];
    for (const waiter of shard.waiters) {
      if (waiter.version <= shard.version) waiter.done();
      else left.push(waiter);
    }
    shard.waiters = left;
  }
}
