import type { RuntimeAddress } from '../../shared/config/runtime-address.ts';
import { Backoff } from '../../shared/net/backoff.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import type { NodeId } from '../../shared/registry/registry.ts';
import type { ClusterView } from './cluster-view.ts';
import { MapSync } from './map-sync.ts';
import { RuntimeApi } from './runtime-api.ts';
import { parseServersState, type ServersState } from './servers-state.ts';
import { planSlots } from './slots.ts';
import type { StateFile } from './state-files.ts';
import type { Targets } from './targets.ts';

/** Without a change HAProxy is looked at so often, milliseconds: it may have been restarted. */
const POLL_INTERVAL = 1000;
/** After a change others are waited for, milliseconds: a node's death comes as one event for each of its tunnels. */
const GATHER = 20;
/** Least time between two rounds, milliseconds, and in times of the last round: HAProxy has other things to do. */
const MIN_PAUSE = 100;
const PAUSE_FACTOR = 4;
/** Between attempts to reach it, milliseconds. */
const FIRST_RETRY = 100;
const LONGEST_RETRY = 2000;
/** HAProxy starts after edge-sync, whose files it needs: until so long after the start it may be missing, milliseconds. */
const START_GRACE = 15_000;

/** What happened, for metrics. `at` counts from 0 in the order of the configuration. */
export interface HaproxyEvents {
  onPush(kind: 'changes' | 'all' | 'servers', wasForeign: boolean): void;
  onRound(seconds: number): void;
  onError(): void;
  /** HAProxy holds what `files` says; called only when that changed. */
  onInStep(files: ReadonlyMap<StateFile, () => readonly string[]>): void;
}

export interface HaproxyOptions {
  readonly address: RuntimeAddress;
  readonly view: ClusterView;
  readonly targets: Targets;
  readonly log: Logger;
  readonly events: HaproxyEvents;
}

/**
 * Keeps one HAProxy in step. Each round compares what it has with what the cluster is and says what differs, so it does not
 * matter what happened before: a restart of either side, an answer that was lost, another edge-sync.
 */
export class Haproxy {
  readonly #api: RuntimeApi;
  readonly #view: ClusterView;
  readonly #targets: Targets;
  readonly #log: Logger;
  readonly #events: HaproxyEvents;
  readonly #owners: MapSync;
  readonly #nodes: MapSync;
  readonly #backoff = new Backoff(FIRST_RETRY, LONGEST_RETRY);
  #servers: ReadonlyMap<NodeId, string> = new Map();
  /** "core2:core5" and the like, once each: there are as many values as pairs of slots, and a value for each tunnel. */
  readonly #values = new Map<string, string>();
  #slots = { unplaced: 0, free: 0 };
  #serversFile = '';
  #isInStep = false;
  #wasReached = false;
  /** Since when a change waits to be pushed, milliseconds of `performance.now()`. */
  #waitingSince: number | undefined;
  #wake: (() => void) | undefined;
  #closed = false;
  #loop: Promise<void> | undefined;

  constructor({ address, view, targets, log, events }: HaproxyOptions) {
    this.#api = new RuntimeApi(address);
    this.#view = view;
    this.#targets = targets;
    this.#log = log.child({ haproxy: this.#api.name });
    this.#events = events;
    const ownersOf = (host: string): string | undefined => this.#serversOf(this.#view.ownersOf(host));
    this.#owners = new MapSync(this.#api, {
      get keys() {
        return view.hosts;
      },
      valueOf: ownersOf,
    });
    this.#nodes = new MapSync(this.#api, {
      get keys() {
        return view.serverNames.keys();
      },
      valueOf: (name) => {
        const nodeId = this.#view.serverNames.get(name);
        return nodeId === undefined ? undefined : this.#servers.get(nodeId);
      },
    });
    view.onChange((change) => {
      if (change === 'nodes') this.#touchAll();
      else this.#owners.touch(change.host);
      this.touch();
    });
  }

  get name(): string {
    return this.#api.name;
  }

  /** Whether the last round left nothing to do. */
  get isInStep(): boolean {
    return this.#isInStep;
  }

  get state(): { readonly owners: number; readonly nodes: number; readonly unplaced: number; readonly free: number } {
    return { owners: this.#owners.size, nodes: this.#nodes.size, ...this.#slots };
  }

  /** Seconds that the oldest change has waited. */
  get lag(): number {
    return this.#waitingSince === undefined ? 0 : (performance.now() - this.#waitingSince) / 1000;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Something may have changed. */
  touch(): void {
    this.#waitingSince ??= performance.now();
    this.#wake?.();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#api.close();
    this.#wake?.();
    await this.#loop;
  }

  async #run(): Promise<void> {
    let isFailing = false;
    let hasWarned = false;
    const graceEnds = performance.now() + START_GRACE;
    while (!this.#closed) {
      const started = performance.now();
      const since = this.#waitingSince;
      this.#waitingSince = undefined;
      try {
        await this.#round();
        this.#backoff.reset();
        this.#wasReached = true;
        if (!this.#isInStep || isFailing) this.#log.info(this.state, 'haproxy is in step');
        this.#isInStep = true;
        isFailing = false;
        hasWarned = false;
      } catch (error) {
        if (this.#closed) return;
        this.#waitingSince = since ?? started;
        this.#events.onError();
        const isStarting = !this.#wasReached && performance.now() < graceEnds;
        if (!hasWarned && !isStarting) {
          this.#log.warn({ err: error }, 'haproxy cannot be brought in step; trying again');
          hasWarned = true;
        }
        this.#isInStep = false;
        isFailing = true;
        await this.#pause(this.#backoff.next(), false);
        continue;
      }
      const took = performance.now() - started;
      this.#events.onRound(took / 1000);
      await this.#pause(Math.max(MIN_PAUSE, PAUSE_FACTOR * took), false);
      if (this.#waitingSince === undefined) await this.#pause(POLL_INTERVAL, true);
      await this.#pause(GATHER, false);
    }
  }

  async #pause(milliseconds: number, untilTouched: boolean): Promise<void> {
    if (this.#closed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        if (!untilTouched && !this.#closed) return;
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }

  async #round(): Promise<void> {
    const files = new Map<StateFile, () => readonly string[]>();
    const servers = await this.#syncServers();
    const text = servers.file.join('\n');
    const isFirst = !this.#isInStep;
    if (isFirst || text !== this.#serversFile) files.set('servers.state', () => servers.file);
    const ids = mapIds(await this.#api.run('show map'));
    for (const [file, map] of [
      ['owners.map', this.#owners],
      ['nodes.map', this.#nodes],
    ] as const) {
      const id = ids.get(file);
      if (id === undefined) throw new Error(`its configuration has no map ${file}`);
      const push = await map.sync(id);
      if (push === undefined && !isFirst) continue;
      files.set(file, () => map.lines());
      if (push === undefined) continue;
      this.#events.onPush(push.kind, push.wasForeign);
      if (push.wasForeign) this.#log.info({ map: file }, 'haproxy was restarted or changed by somebody else');
    }
    this.#serversFile = text;
    if (files.size > 0) this.#events.onInStep(files);
  }

  async #syncServers(): Promise<ServersState> {
    const targets = this.#targets.of(this.#view.nodes);
    let state = parseServersState(await this.#api.run('show servers state'));
    let plan = planSlots(state.rows, targets);
    if (plan.commands.length > 0) {
      // What HAProxy answers to these says little; what it has afterwards says all.
      for (const command of plan.commands) await this.#api.run(command);
      this.#log.info({ commands: plan.commands }, 'servers changed');
      this.#events.onPush('servers', false);
      state = parseServersState(await this.#api.run('show servers state'));
      plan = planSlots(state.rows, targets);
    }
    if (plan.unplaced.length > this.#slots.unplaced) {
      this.#log.error({ nodes: plan.unplaced }, 'haproxy has too few slots for these nodes: raise CULVERT_SLOTS');
    }
    this.#slots = { unplaced: plan.unplaced.length, free: plan.free };
    if (!isSame(plan.servers, this.#servers)) {
      this.#servers = plan.servers;
      this.#touchAll();
    }
    return state;
  }

  #touchAll(): void {
    this.#owners.touch();
    this.#nodes.touch();
  }

  #serversOf(owners: readonly NodeId[]): string | undefined {
    const servers = [...new Set(owners.flatMap((nodeId) => this.#servers.get(nodeId) ?? []))];
    if (servers.length === 0) return undefined;
    const value = servers.join(':');
    const known = this.#values.get(value);
    if (known !== undefined) return known;
    this.#values.set(value, value);
    return value;
  }
}

/** The maps of `show map` by the last part of their files' names: `#3` and the like. */
function mapIds(listing: string): Map<string, string> {
  const ids = new Map<string, string>();
  for (const [, id, name] of listing.matchAll(/^(-?\d+) \((?:[^)]*\/)?([^)/]+)\)/gm)) {
    if (id !== undefined && name !== undefined) ids.set(name, `#${id}`);
  }
  return ids;
}

function isSame(a: ReadonlyMap<NodeId, string>, b: ReadonlyMap<NodeId, string>): boolean {
  return a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);
}
