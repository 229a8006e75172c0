import { randomUUID } from 'node:crypto';
import { CulvertError } from '../../errors/codes.ts';
import type { Logger } from '../../observability/logger.ts';
import { connect, type Link, type RedisAddress, unavailable } from '../../redis/connection.ts';
import { numberAt, type Reply, stringAt } from '../../redis/script-set.ts';
import type { Directory, DirectoryEvent, DirectoryStatus, Page } from '../directory.ts';
import { decodeFields, encodeFields, type FieldsOf, type Kind, LIMITS, type RecordOf } from '../records.ts';
import { conflict, full, gone, notEmpty } from '../refusals.ts';
import { DirectoryReplica } from '../replica.ts';
import { EVENTS } from './keys.ts';
import { Scripts } from './scripts.ts';
import { DirectorySync } from './sync.ts';

export interface RedisDirectoryOptions {
  readonly redis: RedisAddress;
  readonly logger: Logger;
  /** Milliseconds between two looks whether an event was missed. Default 1,000. */
  readonly interval?: number;
  /** Milliseconds for which data that may have been lost takes no changes, while nodes put it back. Default 5,000. */
  readonly window?: number;
  /** Milliseconds that one command may take. Default 1,000. */
  readonly commandTimeout?: number;
  /** Default LIMITS. */
  readonly limits?: Readonly<Record<Kind, number>>;
}

export interface RedisDirectory extends Directory {
  /** Resolves when this node has everything that was in the store at the call. @throws CulvertError `registry_unavailable` */
  caughtUp(): Promise<void>;
}

/** Connects in the background: until it is connected, `unloaded()` and `unavailable()` say so. */
export function createRedisDirectory(options: RedisDirectoryOptions): RedisDirectory {
  return new ClusterDirectory(options);
}

class ClusterDirectory implements RedisDirectory {
  readonly #log: Logger;
  readonly #interval: number;
  readonly #limits: Readonly<Record<Kind, number>>;
  readonly #link: Link;
  readonly #scripts: Scripts;
  readonly #replica = new DirectoryReplica();
  readonly #sync: DirectorySync;
  #state: DirectoryStatus['state'] = 'loading';
  #inStepAt = 0;
  #problem: CulvertError | undefined = new CulvertError('registry_unavailable', 'the directory is not loaded yet');
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> | undefined;
  #again = false;
  #closed: CulvertError | undefined;

  constructor(options: RedisDirectoryOptions) {
    const { redis, logger, interval = 1000, window = 5000, commandTimeout = 1000, limits = LIMITS } = options;
    this.#log = logger;
    this.#interval = interval;
    this.#limits = limits;
    this.#link = connect(redis, commandTimeout, logger);
    const { commands, events } = this.#link;
    this.#scripts = new Scripts(commands, window);
    this.#sync = new DirectorySync({
      client: commands,
      scripts: this.#scripts,
      replica: this.#replica,
      by: randomUUID(),
      log: logger,
      onBehind: () => this.#soon(),
      onRestoring: () => this.#restoring(),
    });
    events.on('message', (_channel: string, text: string) => this.#onMessage(text));
    events.on('ready', () => void this.#subscribe());
    // On a Cluster the connection for events moves without a `ready` when its node goes.
    events.on('+subscriber', () => void this.#subscribe());
    commands.on('ready', () => this.#soon());
    commands.on('close', () =>
      this.#failed(new CulvertError('registry_unavailable', 'the connection to redis is lost')),
    );
    this.#schedule(this.#interval);
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

  async put<K extends Kind>(kind: K, id: string, fields: FieldsOf<K>, expected: number): Promise<RecordOf<K>> {
    const json = encodeFields(kind, id, fields, this.#replica.get(kind, id));
    const reply = await this.#change(() => this.#scripts.put(kind, id, expected, json, this.#limits[kind]));
    await this.#outcome(reply, kind, id, expected);
    const stored = decodeFields(kind, json);
    if (stored === undefined) throw new CulvertError('internal_error', `the ${kind} cannot be read back`);
    return { ...stored, id, version: numberAt(reply, 3), createdAt: numberAt(reply, 4) };
  }

  async remove(kind: Kind, id: string, expected: number): Promise<void> {
    const reply = await this.#change(() => this.#scripts.remove(kind, id, expected));
    await this.#outcome(reply, kind, id, expected);
  }

  unavailable(): CulvertError | undefined {
    return this.#closed ?? this.#problem;
  }

  unloaded(): CulvertError | undefined {
    return this.#sync.isLoaded ? undefined : this.unavailable();
  }

  status(): DirectoryStatus {
    const { losses, lastLoss } = this.#sync;
    return { state: this.#state, inStepAt: this.#inStepAt, losses, lastLoss };
  }

  subscribe(listener: (event: DirectoryEvent) => void): () => void {
    return this.#replica.feed.subscribe(listener);
  }

  async caughtUp(): Promise<void> {
    try {
      const { generation, n } = await this.#scripts.probe();
      await this.#reached(generation, n);
    } catch (error) {
      throw unavailable(error);
    }
  }

  async close(): Promise<void> {
    if (this.#closed !== undefined) return;
    this.#closed = new CulvertError('registry_unavailable', 'the directory is closed');
    clearTimeout(this.#timer);
    this.#replica.feed.clear();
    this.#sync.close();
    this.#link.close();
    await this.#checking;
  }

  async #change(action: () => Promise<Reply>): Promise<Reply> {
    const why = this.unavailable();
    if (why !== undefined) throw why;
    try {
      return await action();
    } catch (error) {
      throw unavailable(error);
    }
  }

  async #outcome(reply: Reply, kind: Kind, id: string, expected: number): Promise<void> {
    const outcome = stringAt(reply, 0);
    if (outcome === 'restoring') {
      await this.#check();
      const ms = Math.ceil(numberAt(reply, 1));
      throw new CulvertError('registry_unavailable', `the durable records are being restored; try again in ${ms} ms`);
    }
    if (outcome === 'full') throw full(kind, this.#limits[kind]);
    if (outcome === 'members') throw notEmpty(id);
    // Also after a refusal: whoever reads the record again must find what refused the change.
    await this.#reached(stringAt(reply, 1), numberAt(reply, 2));
    if (outcome === 'gone') throw gone(kind, id);
    if (outcome === 'conflict') throw conflict(kind, id, expected);
  }

  async #reached(generation: string, n: number): Promise<void> {
    await this.#sync.reached(generation, n, this.#interval / 4);
    // The event did not come: look for it.
    if (!this.#sync.has(generation, n)) await this.#check();
  }

  #onMessage(text: string): void {
    try {
      this.#sync.onMessage(text);
    } catch (error) {
      this.#log.error({ err: error }, 'an event of the directory cannot be read');
    }
  }

  async #subscribe(): Promise<void> {
    try {
      await this.#link.events.subscribe(EVENTS);
      this.#soon();
    } catch (error) {
      this.#log.debug({ err: error }, 'could not subscribe to the events of the directory');
    }
  }

  #soon(): void {
    if (this.#checking !== undefined) this.#again = true;
    else this.#schedule(Math.random() * 10);
  }

  #schedule(pause: number): void {
    clearTimeout(this.#timer);
    if (this.#closed === undefined) this.#timer = setTimeout(() => void this.#check(), pause);
  }

  /** Never rejects. */
  async #check(): Promise<void> {
    // One that runs already may have looked before what the caller means.
    if (this.#checking !== undefined) await this.#checking;
    this.#checking ??= this.#checkNow().finally(() => {
      this.#checking = undefined;
      if (!this.#again) return;
      this.#again = false;
      this.#soon();
    });
    await this.#checking;
  }

  async #checkNow(): Promise<void> {
    if (this.#closed !== undefined) return;
    try {
      const started = Date.now();
      const { state, soon } = await this.#sync.check();
      if (state === 'ready') {
        this.#inStepAt = started;
        this.#become('ready', undefined);
      } else {
        this.#restoring();
      }
      this.#schedule(Math.min(soon ?? this.#interval, this.#interval));
    } catch (error) {
      this.#failed(unavailable(error));
      this.#schedule(this.#interval);
    }
  }

  #restoring(): void {
    const problem = new CulvertError('registry_unavailable', 'the durable records are being restored; try again');
    this.#become(this.#sync.isLoaded ? 'restoring' : 'loading', problem);
  }

  #failed(problem: CulvertError): void {
    this.#become(this.#sync.isLoaded ? 'disconnected' : 'loading', problem);
  }

  #become(state: DirectoryStatus['state'], problem: CulvertError | undefined): void {
    const changed = this.#state !== state;
    this.#state = state;
    this.#problem = problem;
    if (changed && this.#closed === undefined) this.#replica.feed.publish({ type: 'status', status: this.status() });
  }
}
