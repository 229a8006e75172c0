import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import type { EdgeSyncConfig } from '../../shared/config/config.ts';
import { redisAddress } from '../../shared/config/redis-options.ts';
import { formatRuntimeAddress } from '../../shared/config/runtime-address.ts';
import { CulvertError } from '../../shared/errors/codes.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import { type MetricsServer, startMetricsServer } from '../../shared/observability/metrics-server.ts';
import { createRedisRegistry, type RedisRegistry } from '../../shared/registry/redis/redis-registry.ts';
import type { NodeId } from '../../shared/registry/registry.ts';
import { ClusterView } from './cluster-view.ts';
import { Haproxy } from './haproxy.ts';
import { EdgeSyncMetrics } from './metrics.ts';
import { type StateFile, StateFiles } from './state-files.ts';
import { Targets } from './targets.ts';

/** Between attempts to read the registry for the first time, milliseconds. */
const REGISTRY_RETRY = 500;
/** Least time between two writes of the files, milliseconds. */
const FILES_PAUSE = 1000;

type Files = ReadonlyMap<StateFile, () => readonly string[]>;

/** Keeps each HAProxy of the configuration in step with the registry. */
export class EdgeSync {
  readonly #config: EdgeSyncConfig;
  readonly #log: Logger;
  readonly #registry: RedisRegistry;
  readonly #view: ClusterView;
  readonly #haproxies: readonly Haproxy[];
  readonly #metrics: EdgeSyncMetrics;
  /** What HAProxy holds and the files do not yet. */
  readonly #unwritten = new Map<StateFile, () => readonly string[]>();
  #files: StateFiles | undefined;
  #writing: Promise<void> | undefined;
  #server: MetricsServer | undefined;
  #hasRead = false;
  #stopped = false;
  #reading: Promise<void> | undefined;

  /** @throws CulvertError `invalid_config` */
  constructor(config: EdgeSyncConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    const redis = redisAddress(config);
    if (redis === undefined) throw new CulvertError('invalid_config', 'redis-url is missing');
    this.#registry = createRedisRegistry({
      redis,
      nodeId: onlookerId(),
      logger: log,
      maxNames: config.maxNames,
    });
    this.#view = new ClusterView(this.#registry, config.baseDomain);
    this.#metrics = new EdgeSyncMetrics({
      haproxies: () => this.#haproxies,
      isRegistryUp: () => this.#registry.unavailable() === undefined,
      names: () => this.#view.size,
    });
    const targets = new Targets(() => {
      for (const haproxy of this.#haproxies) haproxy.touch();
    });
    this.#haproxies = config.haproxy.map((address) => {
      const name = formatRuntimeAddress(address);
      const events = this.#metrics.eventsOf(name, (files) => this.#onInStep(name, files));
      return new Haproxy({ address, view: this.#view, targets, log, events });
    });
  }

  /** The port of metrics and health checks. */
  get metricsPort(): number {
    return this.#server?.port ?? 0;
  }

  /** Whether the registry was read and every HAProxy is in step. */
  get isReady(): boolean {
    return this.#hasRead && this.#haproxies.every(({ isInStep }) => isInStep);
  }

  /**
   * Resolves when it works in the background; neither Redis nor HAProxy need be there.
   * @throws CulvertError `invalid_config` for a directory or an address that cannot be used
   */
  async start(): Promise<void> {
    this.#files = await StateFiles.open(this.#config.haproxyStateDir);
    this.#server = await startMetricsServer(this.#config.metricsAddr, this.#metrics.registry, () => this.isReady);
    this.#reading = this.#begin();
  }

  /** HAProxy keeps what it has. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#haproxies.map((haproxy) => haproxy.close()));
    this.#view.close();
    await this.#registry.close();
    await this.#reading;
    await this.#writing;
    await this.#server?.close();
  }

  /** Before the registry was read whole, HAProxy has the better knowledge: it keeps what it was told before. */
  async #begin(): Promise<void> {
    let hasWarned = false;
    while (!this.#stopped && !this.#hasRead) {
      try {
        await this.#registry.caughtUp();
        this.#hasRead = true;
      } catch (error) {
        if (this.#stopped) return;
        if (!hasWarned) this.#log.warn({ err: error }, 'the registry cannot be read yet; haproxy keeps what it has');
        hasWarned = true;
        await wait(REGISTRY_RETRY);
      }
    }
    if (this.#stopped) return;
    this.#log.info({ nodes: this.#view.nodes.length, names: this.#view.size }, 'the registry is read');
    for (const haproxy of this.#haproxies) haproxy.start();
  }

  /** The files are those of the first HAProxy that is in step: they need not be the same for all. */
  #onInStep(name: string, files: Files): void {
    const first = this.#haproxies.find((haproxy) => haproxy.isInStep || haproxy.name === name);
    if (first?.name !== name) return;
    for (const [file, lines] of files) this.#unwritten.set(file, lines);
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  async #write(): Promise<void> {
    while (this.#unwritten.size > 0) {
      for (const [file, lines] of [...this.#unwritten]) {
        this.#unwritten.delete(file);
        try {
          await this.#files?.write(file, lines());
        } catch (error) {
          this.#log.error({ err: error, file }, 'a file for the start of haproxy cannot be written');
        }
      }
      if (!this.#stopped) await wait(FILES_PAUSE);
    }
  }
}

/** Each onlooker of the registry needs a name of its own; it is no node and never listed as one. */
function onlookerId(): NodeId {
  const host = hostname()
    .replace(/[^A-Za-z0-9.-]/g, '')
    .slice(0, 80);
  return `edge-sync-${host}-${randomBytes(3).toString('hex')}` as NodeId;
}
