import { SetDigest } from './hash.ts';
import { packed, type RuntimeApi } from './runtime-api.ts';

/** What a map should hold. */
export interface MapContent {
  readonly keys: Iterable<string>;
  /** Undefined for a key that should not be there. */
  valueOf(key: string): string | undefined;
}

export interface MapPush {
  readonly kind: 'changes' | 'all';
  /** HAProxy had something else than what was pushed last: it was restarted, or somebody else wrote. */
  readonly wasForeign: boolean;
}

/** Stands in the map beside the entries and tells what they are. No host has such a name. */
const VERSION_KEY = '_version';
/** Keys that changed, kept one by one; beyond it all are compared. */
const MAX_DIRTY = 10_000;
/**
 * HAProxy 2.6 goes through all entries to find the one that a single change is for. Measured: 1 ms with 30,000 entries, 8 ms with
 * 50,000, 50 ms with 100,000, in which one of its threads serves nobody; a whole new version of 100,000 takes 0.25 s in 600
 * small steps and is taken over at once.
 */
const MOST_CHANGES = 64;
const MOST_ENTRIES_TO_CHANGE = 20_000;

/** Keeps one map of one HAProxy in step. */
export class MapSync {
  readonly #api: RuntimeApi;
  readonly #content: MapContent;
  #applied = new Map<string, string>();
  #digest = new SetDigest();
  #dirty = new Set<string>();
  #isAllDirty = true;
  /** Undefined until HAProxy was found or made to hold `#applied`. */
  #pushed: string | undefined;

  constructor(api: RuntimeApi, content: MapContent) {
    this.#api = api;
    this.#content = content;
  }

  get size(): number {
    return this.#applied.size;
  }

  /** @param key the one whose value may have changed; undefined: any */
  touch(key?: string): void {
    if (key === undefined || this.#dirty.size >= MAX_DIRTY) {
      this.#isAllDirty = true;
      this.#dirty.clear();
    } else if (!this.#isAllDirty) {
      this.#dirty.add(key);
    }
  }

  /** The lines of a map file with what HAProxy holds, as of now. */
  lines(): string[] {
    const lines = Array.from(this.#applied, ([key, value]) => `${key} ${value}`);
    lines.push(`${VERSION_KEY} ${this.#digest.text}`);
    return lines;
  }

  /**
   * @param id `#<number>` of the map
   * @returns what was pushed; undefined when nothing had to be
   * @throws Error when HAProxy did not take it; everything is compared again the next time
   */
  async sync(id: string): Promise<MapPush | undefined> {
    const found = await this.#readVersion(id);
    const wasForeign = this.#pushed !== undefined && found !== this.#pushed;
    const changes = this.#takeChanges();
    if (found === this.#digest.text) {
      // Also a HAProxy that has loaded the very content from its file, or had it from another edge-sync.
      this.#pushed = found;
      return undefined;
    }
    try {
      const isKnown = found === this.#pushed && this.#pushed !== undefined;
      const isCheap = changes.length <= MOST_CHANGES && this.#applied.size <= MOST_ENTRIES_TO_CHANGE;
      const kind = isKnown && isCheap ? 'changes' : 'all';
      if (kind === 'changes') await this.#pushChanges(id, changes);
      else await this.#pushAll(id);
      this.#pushed = this.#digest.text;
      return { kind, wasForeign };
    } catch (error) {
      this.#pushed = undefined;
      throw error;
    }
  }

  /** Brings `#applied` to what is wanted; the commands of the difference. */
  #takeChanges(): string[] {
    const changes: string[] = [];
    const applied = this.#applied;
    const compare = (key: string): void => {
      const before = applied.get(key);
      const value = this.#content.valueOf(key);
      if (before === value) return;
      if (before !== undefined) this.#digest.remove(key, before);
      if (value === undefined) {
        applied.delete(key);
        changes.push(`del map ID ${key}`);
        return;
      }
      applied.set(key, value);
      this.#digest.add(key, value);
      changes.push(`${before === undefined ? 'add' : 'set'} map ID ${key} ${value}`);
    };
    if (this.#isAllDirty) {
      for (const key of applied.keys()) compare(key);
      for (const key of this.#content.keys) compare(key);
    } else {
      for (const key of this.#dirty) compare(key);
    }
    this.#isAllDirty = false;
    this.#dirty.clear();
    return changes;
  }

  async #pushChanges(id: string, changes: readonly string[]): Promise<void> {
    const commands = changes.map((change) => change.replace('ID', id));
    // Last, so that what breaks off before it is not taken for whole.
    await this.#api.runQuietly([...commands, `set map ${id} ${VERSION_KEY} ${this.#digest.text}`]);
  }

  /** One transaction: requests see the old content until all of the new is there. */
  async #pushAll(id: string): Promise<void> {
    const answer = await this.#api.run(`prepare map ${id}`);
    const version = /New version created: (\d+)/.exec(answer)?.[1];
    if (version === undefined) throw new Error(`prepare map ${id}: ${answer.trim().slice(0, 200)}`);
    for (const lines of packed(this.lines(), '\n')) {
      await this.#expectNothing(`add map @${version} ${id} <<\n${lines}\n`);
    }
    await this.#expectNothing(`commit map @${version} ${id}`);
  }

  async #expectNothing(command: string): Promise<void> {
    const answer = (await this.#api.run(command)).trim();
    if (answer !== '') throw new Error(`${command.slice(0, 60)}: ${answer.slice(0, 200)}`);
  }

  async #readVersion(id: string): Promise<string | undefined> {
    const answer = await this.#api.run(`get map ${id} ${VERSION_KEY}`);
    return /value="([^"]*)"/.exec(answer)?.[1];
  }
}
