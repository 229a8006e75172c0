import { CulvertError, type ErrorCode } from '../../shared/errors/codes.ts';
import { Backoff } from '../../shared/net/backoff.ts';
import type { AuthResponse, GoAway, TunnelResponse } from '../../shared/protocol/messages.ts';
import type { Forwarder } from './forward/forwarder.ts';
import type { KnownNodes } from './known-nodes.ts';
import { Link, type NextNode } from './link.ts';
import type { AgentOptions, ServerAddress, TunnelSpec } from './options.ts';

export interface SlotOptions extends Omit<AgentOptions, 'tunnels'> {
  readonly slot: number;
  readonly instanceId: string;
  /** Sessions that the process keeps. */
  readonly sessions: number;
  readonly nodes: KnownNodes;
  readonly version: string;
  readonly forwarder: Forwarder;
  readonly tunnels: () => readonly TunnelSpec[];
  readonly isHealthy: (name: string) => boolean;
  readonly onConnected: (agentId: string, nodeId: string) => void;
  readonly onDisconnected: (error: CulvertError, retryIn: number) => void;
  readonly onTunnel: (name: string, publicUrl: string) => void;
  readonly onRefused: (name: string, error: CulvertError) => void;
  /** No attempt can succeed until somebody changes something. */
  readonly onFatal: (error: CulvertError) => void;
}

export interface SlotState {
  readonly slot: number;
  readonly state: 'connecting' | 'online' | 'waiting';
  /** Milliseconds, from the last heartbeat. */
  readonly roundTrip: number | undefined;
  readonly nodeId: string | undefined;
}

/** Longest wait before the first retry, milliseconds. */
const FIRST_RETRY = 100;
const DEFAULT_RECONNECT_INTERVAL = 5000;
const DEFAULT_CONNECT_TIMEOUT = 10_000;
/** A node that a redirect names is near and awake, or has just died and is not worth waiting for, milliseconds. */
const REDIRECT_TIMEOUT = 3000;
/** A refused tunnel that may be free later is asked for again after this long, milliseconds. */
const REFUSED_RETRY = 5000;
/** A token is renewed this long before it ends, or a tenth of its remaining life if that is less, milliseconds. */
const RENEW_BEFORE = 60_000;

/** A link that was replaced is still served for so long, until every node has heard of the new one, milliseconds. */
const HANDOVER = 500;
/** Streams of a link that was replaced may go on for this long, milliseconds. */
const LEAVING_DEADLINE = 3_600_000;

/** Retrying with the same token and names cannot help. */
const FATAL: ReadonlySet<ErrorCode> = new Set(['invalid_token', 'unsupported_protocol']);

/** How a session on a node ends that is not there any more, or an attempt to get one. */
const NODE_FAILURES: ReadonlySet<ErrorCode> = new Set(['timeout', 'connection_closed']);

/** One of the agent's sessions, kept up: dials, announces the tunnels, dials again. */
export class Slot {
  readonly #options: SlotOptions;
  readonly #backoff: Backoff;
  #link: Link | undefined;
  /** Links that were told to go away and still finish their streams. */
  readonly #leaving = new Set<Link>();
  /** The link on which the tunnels were announced. */
  #announced: Link | undefined;
  /** Tunnels that the newest link has announced and the core has not answered. */
  #unanswered = new Set<string>();
  /** How often it was sent elsewhere since the last session: where that led nowhere, the next node has to keep the session. */
  #redirects = 0;
  /** Where to dial next, when the core named a node. */
  #next: NextNode | undefined;
  /** The node that has the session, or that the core has named for it. */
  #nodeId: string | undefined;
  #retry: NodeJS.Timeout | undefined;
  #renewal: NodeJS.Timeout | undefined;
  #refusedRetry: NodeJS.Timeout | undefined;
  /** Tunnels that were refused for now. */
  readonly #refused = new Set<string>();
  #lastToken = '';
  #stopped = false;
  #onIdle: (() => void) | undefined;

  constructor(options: SlotOptions) {
    this.#options = options;
    this.#backoff = new Backoff(FIRST_RETRY, options.reconnectInterval ?? DEFAULT_RECONNECT_INTERVAL);
  }

  get state(): SlotState {
    const link = this.#link;
    const state = link?.isOpen ? 'online' : link === undefined ? 'waiting' : 'connecting';
    const nodeId = state === 'online' ? this.#nodeId : undefined;
    return { slot: this.#options.slot, state, roundTrip: link?.roundTrip, nodeId };
  }

  start(): void {
    void this.#dial();
  }

  /** Tells the core how this tunnel is. */
  announce(name: string): void {
    const tunnel = this.#options.tunnels().find((each) => each.name === name);
    if (tunnel !== undefined) this.#link?.register(tunnel, this.#options.isHealthy(name));
  }

  /** Ends at once. */
  stop(): void {
    this.#stopped = true;
    this.#clearTimers();
    this.#link?.close();
    for (const link of this.#leaving) link.close();
  }

  /** Takes no more requests and resolves when those in progress are done. @param deadline milliseconds */
  async drain(deadline: number): Promise<void> {
    this.#stopped = true;
    this.#clearTimers();
    if (this.#link === undefined && this.#leaving.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      const giveUp = setTimeout(() => this.stop(), deadline);
      giveUp.unref();
      this.#link?.drain(deadline);
      for (const link of this.#leaving) link.drain(deadline);
    });
  }

  async #dial(): Promise<void> {
    if (this.#stopped) return;
    let token: string;
    try {
      token = await this.#token();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#failed(new CulvertError('invalid_config', `the token cannot be read: ${why}`));
      return;
    }
    if (this.#stopped) return;
    this.#lastToken = token;
    // Where a node sent us is tried once; if that fails, the address that the user gave is next.
    const next = this.#next;
    this.#next = undefined;
    const options = this.#options;
    const connectTimeout = options.connectTimeout ?? DEFAULT_CONNECT_TIMEOUT;
    const link: Link = new Link(
      token,
      {
        server: (next?.address === undefined ? undefined : parseServer(next.address)) ?? options.server,
        certifiedHost: options.server.host,
        nodeName: next?.serverName,
        redirects: this.#redirects,
        tls: options.tls ?? {},
        agentId: options.agentId,
        instanceId: options.instanceId,
        slot: options.slot,
        sessions: options.sessions,
        nodes: options.nodes,
        version: options.version,
        connectTimeout: next === undefined ? connectTimeout : Math.min(connectTimeout, REDIRECT_TIMEOUT),
        forwarder: options.forwarder,
      },
      {
        onOpen: (response) => this.#onOpen(link, response),
        onTunnel: (response) => this.#onTunnel(link, response),
        onRedirect: (next) => this.#onRedirect(link, next),
        onGoAway: (message) => this.#onGoAway(link, message),
        onClosed: (error) => this.#onClosed(link, error),
      },
    );
    this.#link = link;
  }

  async #token(): Promise<string> {
    const { token } = this.#options;
    return typeof token === 'string' ? token : (await token()).trim();
  }

  #onOpen(link: Link, response: AuthResponse): void {
    if (link !== this.#link) return;
    this.#scheduleRenewal(response.expires_at);
    // A later response is the answer to a renewed token.
    if (this.#announced === link) return;
    this.#announced = link;
    this.#redirects = 0;
    this.#backoff.reset();
    const nodeId = response.node_id ?? '';
    this.#place(nodeId);
    this.#options.nodes.works(nodeId);
    this.#options.onConnected(response.agentID ?? '', nodeId);
    this.#unanswered = new Set(this.#options.tunnels().map(({ name }) => name));
    for (const tunnel of this.#options.tunnels()) link.register(tunnel, this.#options.isHealthy(tunnel.name));
  }

  #onTunnel(link: Link, response: TunnelResponse): void {
    this.#unanswered.delete(response.subdomain);
    // The new link serves all that the old ones did: they may finish their streams and close.
    if (link === this.#link && this.#unanswered.size === 0) this.#handOver();
    if (response.success) {
      this.#options.onTunnel(response.subdomain, response.public_url ?? '');
      return;
    }
    const error = new CulvertError(
      response.code ?? 'internal_error',
      response.message ?? 'the core refused the tunnel',
    );
    this.#options.onRefused(response.subdomain, error);
    if (!error.retryable || this.#stopped) return;
    this.#refused.add(response.subdomain);
    this.#refusedRetry ??= setTimeout(() => {
      this.#refusedRetry = undefined;
      const names = [...this.#refused];
      this.#refused.clear();
      for (const name of names) this.announce(name);
    }, REFUSED_RETRY);
  }

  #handOver(): void {
    const replaced = [...this.#leaving];
    if (replaced.length === 0) return;
    setTimeout(() => {
      for (const link of replaced) link.drain(LEAVING_DEADLINE);
    }, HANDOVER).unref();
  }

  #onRedirect(link: Link, next: NextNode): void {
    if (link !== this.#link || this.#stopped) return;
    this.#link = undefined;
    this.#goTo(next);
    void this.#dial();
  }

  #goTo(next: NextNode): void {
    this.#redirects += 1;
    this.#next = next;
    this.#place(next.nodeId);
  }

  #place(nodeId: string | undefined): void {
    this.#nodeId = nodeId;
    this.#options.nodes.place(this.#options.slot, nodeId);
  }

  /** Make before break: the next link is dialled while this one finishes its streams. */
  #onGoAway(link: Link, message: GoAway): void {
    if (link !== this.#link || this.#stopped) return;
    this.#leaving.add(link);
    this.#link = undefined;
    this.#place(undefined);
    clearTimeout(this.#renewal);
    const { reconnect_to: address, reconnect_server_name: serverName, reconnect_node: nodeId } = message;
    if (address !== undefined || serverName !== undefined) this.#goTo({ address, serverName, nodeId });
    const error = new CulvertError(message.code ?? 'node_draining', message.reason);
    const wait = this.#backoff.next();
    this.#options.onDisconnected(error, wait);
    this.#retry = setTimeout(() => void this.#dial(), wait);
  }

  #onClosed(link: Link, error: CulvertError): void {
    if (this.#leaving.delete(link)) {
      this.#checkIdle();
      return;
    }
    if (link !== this.#link) return;
    this.#link = undefined;
    if (NODE_FAILURES.has(error.code)) this.#options.nodes.hasFailed(this.#nodeId);
    this.#place(undefined);
    // Where nobody may stay nobody has to keep the session: it may be sent elsewhere again.
    if (error.code === 'node_draining') this.#redirects = 0;
    clearTimeout(this.#renewal);
    this.#failed(error);
  }

  #failed(error: CulvertError): void {
    if (this.#stopped) {
      this.#checkIdle();
      return;
    }
    const { maxRetries = 0 } = this.#options;
    // A token that is read anew for each attempt may be replaced meanwhile, a constant one never gets better.
    const fatal = FATAL.has(error.code) && typeof this.#options.token === 'string';
    if (fatal || (maxRetries > 0 && this.#backoff.failures >= maxRetries)) {
      this.#stopped = true;
      this.#options.onFatal(error);
      return;
    }
    const wait = this.#backoff.next();
    this.#options.onDisconnected(error, wait);
    this.#retry = setTimeout(() => void this.#dial(), wait);
  }

  #scheduleRenewal(expiresAt: number | undefined): void {
    clearTimeout(this.#renewal);
    if (expiresAt === undefined || typeof this.#options.token === 'string') return;
    const left = Math.max(0, expiresAt - Date.now());
    const wait = Math.min(left - Math.min(RENEW_BEFORE, left / 10), 0x7fff_ffff);
    this.#renewal = setTimeout(() => void this.#renew(expiresAt), Math.max(wait, 50));
    this.#renewal.unref();
  }

  async #renew(expiresAt: number): Promise<void> {
    try {
      const token = await this.#token();
      if (token !== this.#lastToken) {
        this.#lastToken = token;
        this.#link?.renew(token);
        return;
      }
    } catch {
      // The core's Go Away at the end of the token leads to a new attempt, whose failure is reported.
    }
    if (expiresAt > Date.now()) this.#scheduleRenewal(expiresAt);
  }

  #checkIdle(): void {
    if (this.#link === undefined && this.#leaving.size === 0) this.#onIdle?.();
  }

  #clearTimers(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#renewal);
    clearTimeout(this.#refusedRetry);
  }
}

/** `host:port` as nodes write it; undefined when it is not that. */
function parseServer(address: string): ServerAddress | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return host === undefined || port < 1 || port > 65535 ? undefined : { host, port };
}
