import { randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { CulvertError } from '../../shared/errors/codes.ts';
import { VERSION } from '../../shared/version.ts';
import { createForwarder, type Forwarder } from './forward/forwarder.ts';
import { type HealthCheck, startHealthCheck } from './forward/health.ts';
import { KnownNodes } from './known-nodes.ts';
import type { AgentOptions, TunnelSpec } from './options.ts';
import { Slot, type SlotOptions, type SlotState } from './slot.ts';

export interface AgentEvents {
  /** A session is up. */
  connected: [session: { readonly slot: number; readonly agentId: string; readonly nodeId: string }];
  /** A session is gone, or an attempt failed; another attempt follows in `retryIn` milliseconds. */
  disconnected: [session: { readonly slot: number; readonly error: CulvertError; readonly retryIn: number }];
  /** A tunnel answers at `publicUrl`. Once per tunnel, and again when its URL changes. */
  tunnel: [tunnel: { readonly name: string; readonly url: string; readonly publicUrl: string }];
  /** The core refused a tunnel; the others go on. */
  refused: [tunnel: { readonly name: string; readonly error: CulvertError }];
  /** A local service passes or fails its health check from now on. */
  health: [tunnel: { readonly name: string; readonly healthy: boolean; readonly why: string }];
  /** The agent has stopped: `error` is undefined after `close()`, else what no retry can mend. */
  closed: [error: CulvertError | undefined];
}

/** Handle of a running agent. */
export interface AgentHandle extends EventEmitter<AgentEvents> {
  /** Resolves when every tunnel answers; rejects with the error that stopped the agent. */
  readonly ready: Promise<void>;
  /** Resolves when the agent has stopped, however it came about. */
  readonly closed: Promise<CulvertError | undefined>;
  /** Tunnel name → public URL, of those that answer. */
  readonly publicUrls: ReadonlyMap<string, string>;
  readonly sessions: readonly SlotState[];
  /** Requests in progress. */
  readonly active: number;
  /** Finishes requests in progress for up to `deadline` milliseconds (default 10,000), then stops. */
  close(deadline?: number): Promise<void>;
}

const DEFAULT_CLOSE_DEADLINE = 10_000;

/** Keeps sessions to the core and serves tunnels through them. */
export class Agent extends EventEmitter<AgentEvents> implements AgentHandle {
  readonly ready: Promise<void>;
  readonly closed: Promise<CulvertError | undefined>;
  readonly #options: AgentOptions;
  readonly #forwarder: Forwarder;
  readonly #slots: Slot[];
  readonly #checks: HealthCheck[] = [];
  readonly #healthy = new Map<string, boolean>();
  readonly #publicUrls = new Map<string, string>();
  readonly #refused = new Map<string, CulvertError>();
  #resolveReady: () => void = () => {};
  #rejectReady: (error: CulvertError) => void = () => {};
  #resolveClosed: (error: CulvertError | undefined) => void = () => {};
  #stopped = false;
  /** Slots that have begun to dial. */
  #started = 0;

  /** @throws CulvertError `invalid_config` when a tunnel's URL cannot be used or there is no tunnel */
  constructor(options: AgentOptions) {
    super();
    if (options.tunnels.length === 0) throw new CulvertError('invalid_config', 'an agent needs at least one tunnel');
    this.#options = options;
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Nobody has to wait for `ready`; a failure is told by `closed` too.
    this.ready.catch(() => {});
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    // Without a word from the user the forwarder decides: loopback services are mostly self-signed.
    const tls = options.localTlsSkipVerify === true ? { verify: false } : {};
    this.#forwarder = createForwarder({
      mappings: Object.fromEntries(options.tunnels.map(({ name, url }) => [name, url])),
      hostHeader: options.hostHeader,
      requestTimeoutMs: options.requestTimeout,
      onRequest: options.onRequest,
      tls,
    });
    for (const { name, url } of options.tunnels) {
      this.#healthy.set(name, true);
      this.#checks.push(
        startHealthCheck({
          tunnel: name,
          url,
          path: options.healthCheckPath,
          intervalMs: options.healthCheckInterval,
          tls,
          onChange: (healthy, why) => this.#onHealth(name, healthy, why),
        }),
      );
    }
    const shared = {
      instanceId: randomBytes(9).toString('base64url'),
      sessions: options.connections ?? 2,
      nodes: new KnownNodes(),
    };
    this.#slots = Array.from({ length: shared.sessions }, (_, slot) => new Slot(this.#slotOptions(slot, shared)));
    this.#startNext(-1);
  }

  get publicUrls(): ReadonlyMap<string, string> {
    return this.#publicUrls;
  }

  get sessions(): readonly SlotState[] {
    return this.#slots.map((slot) => slot.state);
  }

  get active(): number {
    return this.#forwarder.active;
  }

  async close(deadline = DEFAULT_CLOSE_DEADLINE): Promise<void> {
    if (!this.#stopped) {
      this.#stopped = true;
      for (const check of this.#checks) check.close();
      await Promise.all(this.#slots.map((slot) => slot.drain(deadline)));
      this.#finish(undefined);
    }
    await this.closed;
  }

  #slotOptions(slot: number, shared: Pick<SlotOptions, 'instanceId' | 'sessions' | 'nodes'>): SlotOptions {
    return {
      ...this.#options,
      ...shared,
      slot,
      version: VERSION,
      forwarder: this.#forwarder,
      tunnels: () => this.#wanted(),
      isHealthy: (name: string) => this.#healthy.get(name) ?? true,
      onConnected: (agentId, nodeId) => {
        this.emit('connected', { slot, agentId, nodeId });
        this.#startNext(slot);
      },
      onDisconnected: (error, retryIn) => {
        this.emit('disconnected', { slot, error, retryIn });
        this.#startNext(slot);
      },
      onTunnel: (name, publicUrl) => this.#onTunnel(name, publicUrl),
      onRefused: (name, error) => this.#onRefused(name, error),
      onFatal: (error) => this.#fatal(error),
    };
  }

  /** One after another: the cluster has to know where one session is to find another node for the next. */
  #startNext(slot: number): void {
    if (slot !== this.#started - 1) return;
    this.#slots[this.#started]?.start();
    this.#started += 1;
  }

  #wanted(): TunnelSpec[] {
    return this.#options.tunnels.filter(({ name }) => !this.#refused.has(name));
  }

  #onTunnel(name: string, publicUrl: string): void {
    const spec = this.#options.tunnels.find((tunnel) => tunnel.name === name);
    if (spec === undefined || this.#publicUrls.get(name) === publicUrl) return;
    this.#publicUrls.set(name, publicUrl);
    this.emit('tunnel', { name, url: spec.url, publicUrl });
    this.#checkReady();
  }

  #onRefused(name: string, error: CulvertError): void {
    if (this.#refused.has(name) || this.#stopped) return;
    if (error.retryable) {
      this.emit('refused', { name, error });
      return;
    }
    this.#refused.set(name, error);
    this.emit('refused', { name, error });
    if (this.#wanted().length === 0) this.#fatal(error);
    else this.#checkReady();
  }

  #checkReady(): void {
    if (this.#wanted().every((tunnel) => this.#publicUrls.has(tunnel.name))) this.#resolveReady();
  }

  #onHealth(name: string, healthy: boolean, why: string): void {
    this.#healthy.set(name, healthy);
    this.emit('health', { name, healthy, why });
    for (const slot of this.#slots) slot.announce(name);
  }

  #fatal(error: CulvertError): void {
    if (this.#stopped) return;
    this.#stopped = true;
    for (const check of this.#checks) check.close();
    for (const slot of this.#slots) slot.stop();
    this.#finish(error);
  }

  #finish(error: CulvertError | undefined): void {
    this.#forwarder.close();
    this.#rejectReady(error ?? new CulvertError('connection_closed', 'the agent was closed'));
    this.emit('closed', error);
    this.#resolveClosed(error);
  }
}

/** Starts an agent. It connects in the background: wait for `ready`, or listen to its events. */
export function connect(options: AgentOptions): AgentHandle {
  return new Agent(options);
}
