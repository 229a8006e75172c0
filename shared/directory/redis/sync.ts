import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from '../../observability/logger.ts';
import type { RedisClient } from '../../redis/connection.ts';
import type { DirectoryLoss } from '../directory.ts';
import { KINDS } from '../records.ts';
import type { DirectoryReplica } from '../replica.ts';
import { restore } from './restore.ts';
import type { Position, Scripts } from './scripts.ts';
import { type DirectoryMessage, parseMessage, readAll, readRecent } from './snapshot.ts';

export interface SyncOptions {
  readonly client: RedisClient;
  readonly scripts: Scripts;
  readonly replica: DirectoryReplica;
  /** This process. */
  readonly by: string;
  readonly log: Logger;
  /** An event is missing, or the data began a new generation: `check` is due. */
  readonly onBehind: () => void;
  /** Redis' data is not what this node knows: from now until a check says `ready`. */
  readonly onRestoring: () => void;
}

/** What a check found. */
export interface Checked {
  readonly state: 'ready' | 'restoring';
  /** Milliseconds until it is worth looking again. */
  readonly soon?: number;
}

/** An event is given so long to arrive before it counts as lost, milliseconds. */
const IN_FLIGHT = 200;
/** Attempts to read everything while others change it. */
const ATTEMPTS = 5;
/** Events kept while everything is read; beyond it they are read from Redis. */
const MAX_BACKLOG = 5000;
const RETRY = 100;

/** Keeps the replica in step with Redis: events without gaps, and a look each second whether one was missed. */
export class DirectorySync {
  readonly #options: SyncOptions;
  #generation: string | undefined;
  #n = 0;
  /** The replica is complete up to this version. */
  #version = 0;
  #backlog: DirectoryMessage[] | undefined;
  /** A generation to which this node has nothing to add. */
  #given = '';
  #reported = '';
  #losses = 0;
  #lastLoss: DirectoryLoss | undefined;
  #waiters: { readonly n: number; readonly done: () => void }[] = [];

  constructor(options: SyncOptions) {
    this.#options = options;
  }

  get isLoaded(): boolean {
    return this.#generation !== undefined;
  }

  get losses(): number {
    return this.#losses;
  }

  get lastLoss(): DirectoryLoss | undefined {
    return this.#lastLoss;
  }

  onMessage(text: string): void {
    const message = parseMessage(text);
    if (message.n === 0) this.#options.onBehind();
    else if (this.#backlog === undefined) {
      if (!this.#apply(message)) this.#options.onBehind();
    } else if (this.#backlog.length < MAX_BACKLOG) this.#backlog.push(message);
  }

  /** Compares with Redis and does what follows. One at a time. @throws what Redis threw */
  async check(): Promise<Checked> {
    const position = await this.#options.scripts.probe();
    if (position.generation === this.#generation) {
      const isBehind = position.n > this.#n && !(await this.#catchUp(position));
      return isBehind ? { state: 'restoring', soon: RETRY } : { state: 'ready' };
    }
    this.#options.onRestoring();
    if (this.isLoaded && this.#given !== position.generation && !(await this.#give(position))) {
      return { state: 'restoring', soon: RETRY };
    }
    // Not before it is open: other nodes may still put back what would be missed.
    if (position.opensIn > 0) return { state: 'restoring', soon: position.opensIn };
    return (await this.#load()) ? { state: 'ready' } : { state: 'restoring', soon: RETRY };
  }

  /** Whether the replica has this event, or has moved on to another generation. */
  has(generation: string, n: number): boolean {
    return this.#generation !== generation || this.#n >= n;
  }

  /** Resolves when the replica has this event, or after `within` milliseconds. */
  async reached(generation: string, n: number, within: number): Promise<void> {
    if (this.has(generation, n)) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(done, within);
      timer.unref();
      this.#waiters.push({ n, done });
    });
  }

  close(): void {
    for (const { done } of this.#waiters.splice(0)) done();
  }

  async #catchUp({ generation, n }: Position): Promise<boolean> {
    await this.reached(generation, n, IN_FLIGHT);
    if (this.#n >= n) return true;
    this.#options.log.debug({ missed: n - this.#n }, 'events of the directory were lost; reading them again');
    const missed = await readRecent(this.#options.client, this.#n, n - this.#n);
    for (const message of missed) if (!this.#apply(message)) break;
    return this.#n >= n || this.#load();
  }

  /** Puts back what is missing. False: not done yet. */
  async #give({ generation, found }: Position): Promise<boolean> {
    const { log } = this.#options;
    const isLoss = this.#version > found;
    if (isLoss && this.#reported !== generation) {
      this.#reported = generation;
      this.#losses += 1;
      this.#lastLoss = { at: Date.now(), held: this.#version, found, restored: undefined };
      log.error(
        this.#lastLoss,
        'accounts, keys or revocations in redis are missing or old: putting back what this node holds',
      );
    }
    if (!isLoss) return true;
    const outcome = await restore(this.#options, this.#version);
    if (outcome === 'busy') return false;
    this.#given = generation;
    if (outcome !== 'older' && this.#lastLoss !== undefined) {
      this.#lastLoss = { ...this.#lastLoss, restored: outcome };
      log.warn(this.#lastLoss, 'accounts, keys and revocations are back in redis');
    }
    return true;
  }

  /** Reads everything. False when it is not to be had now. */
  async #load(): Promise<boolean> {
    const { client, scripts, replica } = this.#options;
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
        this.#backlog = [];
        const before = await scripts.probe();
        if (before.opensIn > 0) return false;
        const snapshot = await readAll(client);
        const after = await scripts.probe();
        if (after.generation !== before.generation) continue;
        const meanwhile = await readRecent(client, before.n, after.n - before.n);
        for (const { n, kind, id, stored } of meanwhile) {
          if (n > after.n || kind === undefined) continue;
          if (stored === undefined) snapshot[kind].delete(id);
          else snapshot[kind].set(id, stored);
        }
        // A slot of a Cluster that moved meanwhile, or too many events, would leave a record out.
        const size = KINDS.reduce((sum, kind) => sum + snapshot[kind].size, 0);
        if (size !== after.records) continue;
        this.#generation = after.generation;
        this.#n = after.n;
        this.#version = after.version;
        replica.replace(snapshot);
        if (!this.#backlog.every((message) => this.#apply(message))) continue;
        this.#wake();
        return true;
      }
      await wait(RETRY);
      return false;
    } finally {
      this.#backlog = undefined;
    }
  }

  /** False when an event before this one is missing. */
  #apply({ generation, n, version, kind, id, stored }: DirectoryMessage): boolean {
    if (generation !== this.#generation) return false;
    if (n <= this.#n) return true;
    if (n !== this.#n + 1) return false;
    this.#n = n;
    this.#version = version;
    if (kind !== undefined) this.#options.replica.set(kind, id, stored);
    this.#wake();
    return true;
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const left = this.#waiters.filter(({ n }) => n > this.#n);
    const woken = this.#waiters.filter(({ n }) => n <= this.#n);
    this.#waiters = left;
    for (const { done } of woken) done();
  }
}
