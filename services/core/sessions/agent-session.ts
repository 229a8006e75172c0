import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SessionFigures } from '../../../shared/control/figures.ts';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import { parsePolicy } from '../../../shared/policy/tunnel-policy.ts';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { Flag, FrameType } from '../../../shared/protocol/frame.ts';
import {
  AuthRequest,
  type AuthResponse,
  FEATURES,
  type GoAway,
  parseMessage,
  REQUIRED_FEATURES,
  TunnelRequest,
  type TunnelResponse,
} from '../../../shared/protocol/messages.ts';
import { Session } from '../../../shared/protocol/session.ts';
import type { Stream, StreamSink, Upstream } from '../../../shared/protocol/stream-types.ts';
import { normalizeTunnelName } from '../../../shared/registry/names.ts';
import { type NodeId, type Registry, type SessionRecord, sessionId } from '../../../shared/registry/registry.ts';
import type { DrainOptions, HeldSession, SessionTable, Way } from './session-table.ts';
import { type Identity, isNameAllowed, type TokenVerifier } from './token-verifier.ts';

export interface AgentSessionOptions {
  readonly registry: Registry;
  readonly table: SessionTable;
  readonly verifier: TokenVerifier;
  readonly log: Logger;
  readonly nodeId: NodeId;
  readonly version: string;
  readonly baseDomain: string;
  /** The URL that visitors use for a tunnel name. */
  readonly publicUrl: (name: string) => string;
  /** Milliseconds until the first frame must have proved who the agent is. */
  readonly authTimeout: number;
  readonly heartbeatInterval: number;
  readonly heartbeatTimeout: number;
  readonly maxConnections: number;
  readonly maxConnectionsPerAccount: number;
  readonly maxTunnelsPerAccount: number;
  readonly maxStreamsPerSession: number;
  /** Last stream id of a session. Default LAST_STREAM_ID. */
  readonly lastStreamId?: number;
  /** Bytes that one session may hold, within the process's budget. */
  readonly sessionBuffer: number;
  readonly processBudget: ByteBudget;
  /** Resolves once the other nodes are known. Default: there are none. */
  readonly whenPlaced?: (() => Promise<void> | undefined) | undefined;
  /** Where a session that is not for this node should go; undefined: it stays. Default: every one stays. */
  readonly placeElsewhere?: ((agentId: string, request: AuthRequest) => Way | undefined) | undefined;
  /** Whether the node takes no new agents. Default: it takes them. */
  readonly isDraining?: () => boolean;
  readonly onAuthenticated: (session: AgentSession) => void;
  readonly onRefused: (code: ErrorCode) => void;
}

/** Control messages of one session that may wait for the registry; an honest agent waits for its answers. */
const MAX_PENDING_CONTROL = 256;
/** A session whose stream ids run out keeps its long streams for this time, milliseconds. */
const REPLACEMENT_DEADLINE = 3_600_000;
/** Node's timers hold no longer delay, milliseconds (about 24.8 days). */
const LONGEST_TIMER = 0x7fff_ffff;

/** One agent connection on the core's side: authentication, its tunnels, and the way to open streams on it. */
export class AgentSession implements HeldSession {
  readonly remoteAddress: string;
  readonly #options: AgentSessionOptions;
  readonly #socket: Duplex;
  readonly #session: Session;
  #version = '';
  #identity: Identity | undefined;
  #record: SessionRecord | undefined;
  #authTimer: NodeJS.Timeout;
  #pending = 0;
  #queue: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(socket: Duplex, remoteAddress: string, options: AgentSessionOptions) {
    this.remoteAddress = remoteAddress;
    this.#options = options;
    this.#socket = socket;
    this.#session = new Session(
      socket,
      {
        onControl: (type, flags, payload) => this.#onControl(type, flags, payload),
        onStream: (stream) => refuseStream(stream),
        onGoAway: (message) => this.#onGoAway(message),
        onNearlyUsedUp: () =>
          this.drain('the stream ids are nearly used up', REPLACEMENT_DEADLINE, { keepServing: true }),
        onClosed: (code, message) => this.#onClosed(code, message),
      },
      {
        role: 'opener',
        heartbeatInterval: options.heartbeatInterval,
        deadAfter: options.heartbeatTimeout,
        maxStreams: options.maxStreamsPerSession,
        ...(options.lastStreamId === undefined ? {} : { lastStreamId: options.lastStreamId }),
        budget: new ByteBudget(options.sessionBuffer, options.processBudget),
      },
    );
    this.#authTimer = setTimeout(() => {
      this.refuse('timeout', `no authentication within ${options.authTimeout} ms`);
    }, options.authTimeout);
  }

  get upstream(): Upstream {
    return this.#session;
  }

  get ref(): SessionRecord | undefined {
    return this.#record;
  }

  get accountId(): string {
    return this.#identity?.accountId ?? '';
  }

  get agentId(): string {
    return this.#identity?.agentId ?? '';
  }

  get figures(): SessionFigures | undefined {
    if (this.#record === undefined) return undefined;
    const { bytesRead = 0, bytesWritten = 0 } = this.#socket instanceof Socket ? this.#socket : {};
    return {
      id: this.#record.id,
      epoch: this.#record.epoch,
      remoteAddress: this.remoteAddress,
      version: this.#version,
      draining: this.#session.state !== 'open',
      roundTrip: this.#session.measuredRoundTrip ?? null,
      streams: this.#session.load,
      requests: this.#session.opened,
      bytesIn: bytesRead,
      bytesOut: bytesWritten,
    };
  }

  get isLeaving(): boolean {
    return this.#session.state !== 'open';
  }

  drain(reason: string, deadline: number, { code, next, keepServing = false }: DrainOptions = {}): void {
    const extra = {
      ...(code === undefined ? {} : { code }),
      ...(next?.address === undefined ? {} : { reconnect_to: next.address }),
      ...(next?.serverName === undefined ? {} : { reconnect_server_name: next.serverName }),
      ...(next === undefined ? {} : { reconnect_node: next.nodeId }),
    };
    this.#session.goAway(reason, deadline, extra, keepServing);
  }

  close(code: ErrorCode | undefined, message: string): void {
    this.#session.close(code, message);
  }

  /** Ends a connection that was never let in. */
  refuse(code: ErrorCode, message: string): void {
    this.#options.onRefused(code);
    this.#options.log.warn({ remote: this.remoteAddress, code }, `agent refused: ${message}`);
    this.#session.close(code, message);
  }

  #onControl(type: number, flags: number, payload: Buffer): void {
    if (type === FrameType.AuthRequest) {
      if (this.#identity === undefined && this.#pending > 0) {
        throw new CulvertError('invalid_frame', 'a second Auth Request came before the first was answered');
      }
      const request = parseMessage('Auth Request', AuthRequest, payload);
      this.#enqueue(() => this.#authenticate(request));
      return;
    }
    if (this.#session.state === 'handshake' && this.#pending === 0) {
      throw new CulvertError('invalid_frame', 'the first frame must be an Auth Request');
    }
    if ((flags & Flag.Ack) !== 0) throw new CulvertError('invalid_frame', 'the core sends replies, not the agent');
    if (type === FrameType.RegisterTunnel) {
      const request = parseMessage('Register Tunnel', TunnelRequest, payload);
      this.#enqueue(() => this.#register(request));
    } else if (type === FrameType.UnregisterTunnel) {
      const request = parseMessage('Unregister Tunnel', TunnelRequest, payload);
      this.#enqueue(() => this.#unregister(request));
    } else {
      throw new CulvertError('invalid_frame', `frame type 0x${type.toString(16)} is not for the core`);
    }
  }

  /** Control messages take effect one after another, in the order they came. */
  #enqueue(action: () => Promise<void>): void {
    this.#pending += 1;
    if (this.#pending > MAX_PENDING_CONTROL) {
      throw new CulvertError(
        'rate_limit_exceeded',
        `more than ${MAX_PENDING_CONTROL} control frames wait for their answer`,
      );
    }
    this.#queue = this.#queue.then(async () => {
      try {
        if (!this.#closed) await action();
      } catch (error) {
        this.#options.log.error({ err: error, remote: this.remoteAddress }, 'control frame failed');
        this.#session.close('internal_error', 'a control frame could not be handled');
      } finally {
        this.#pending -= 1;
      }
    });
  }

  async #authenticate(request: AuthRequest): Promise<void> {
    try {
      const identity = await this.#options.verifier.verify(request.token);
      if (this.#closed) return;
      // The verifier forgives clocks that differ. A session that begins after `exp` would be sent away at once, and its agent
      // would come back with the same token again and again.
      if (identity.expiresAt <= Date.now()) throw new CulvertError('invalid_token', 'the token has expired');
      if (this.#identity === undefined) await this.#admit(request, identity);
      else this.#renew(identity);
    } catch (error) {
      if (!(error instanceof CulvertError)) throw error;
      this.#reply({ success: false, code: error.code, message: error.message });
      this.refuse(error.code, error.message);
    }
  }

  async #admit(request: AuthRequest, identity: Identity): Promise<void> {
    const options = this.#options;
    const offered = request.features ?? [];
    const missing = REQUIRED_FEATURES.filter((feature) => !offered.includes(feature));
    if (missing.length > 0) throw new CulvertError('unsupported_protocol', `the agent lacks ${missing.join(', ')}`);
    if (request.agent_id !== undefined && request.agent_id !== identity.agentId) {
      throw new CulvertError('invalid_token', `the token is for agent ${identity.agentId}, not ${request.agent_id}`);
    }
    await options.whenPlaced?.();
    if (this.#closed) return;
    const better = options.placeElsewhere?.(identity.agentId, request);
    if (better !== undefined) {
      const message = 'another node should have this session';
      this.#reply({
        success: false,
        ...(better.address === undefined ? {} : { redirect_to: better.address }),
        ...(better.serverName === undefined ? {} : { redirect_server_name: better.serverName }),
        redirect_node: better.nodeId,
        message,
      });
      this.#session.close(undefined, `sent to ${better.nodeId}`);
      return;
    }
    if (options.isDraining?.()) throw new CulvertError('node_draining', 'the node takes no new agents');
    if (options.table.size >= options.maxConnections) {
      throw new CulvertError('quota_exceeded', `the node has ${options.maxConnections} agent connections, its limit`);
    }
    const { instance_id: instanceId = identity.agentId, slot = 0 } = request;
    // Nothing was awaited since its place was chosen: the next of the same process sees this one here.
    const arrived = options.table.expect(sessionId(identity.agentId, instanceId, slot));
    try {
      const record = await options.registry.openSession({
        agentId: identity.agentId,
        accountId: identity.accountId,
        instanceId,
        slot,
        nodeId: options.nodeId,
        maxSessionsPerAccount: Math.min(
          options.maxConnectionsPerAccount,
          identity.maxConnections ?? Number.POSITIVE_INFINITY,
        ),
      });
      if (this.#closed) await options.registry.closeSession(record);
      else this.#opened(record, identity, request);
    } finally {
      arrived();
    }
  }

  #opened(record: SessionRecord, identity: Identity, request: AuthRequest): void {
    const options = this.#options;
    clearTimeout(this.#authTimer);
    this.#identity = identity;
    this.#record = record;
    this.#version = request.version ?? '';
    options.table.add(this, record, identity.accountId);
    this.#watchExpiry(identity);
    this.#reply(this.#welcome(identity, request.features ?? []));
    this.#session.authenticated();
    options.log.info(
      { agent: identity.agentId, account: identity.accountId, session: record.id, remote: this.remoteAddress },
      'agent connected',
    );
    options.onAuthenticated(this);
  }

  /** A second Auth Request replaces the token of the session, never its agent. */
  #renew(identity: Identity): void {
    const current = this.#identity;
    if (current?.agentId !== identity.agentId || current.accountId !== identity.accountId) {
      throw new CulvertError('invalid_token', 'the new token is for another agent or account');
    }
    this.#identity = identity;
    this.#watchExpiry(identity);
    this.#reply(this.#welcome(identity, []));
  }

  #welcome(identity: Identity, offered: readonly string[]): AuthResponse {
    return {
      success: true,
      agentID: identity.agentId,
      accountID: identity.accountId,
      node_id: this.#options.nodeId,
      features: FEATURES.filter((feature) => offered.includes(feature)),
      heartbeat_ms: this.#options.heartbeatInterval,
      dead_after_ms: this.#options.heartbeatTimeout,
      expires_at: identity.expiresAt,
      version: this.#options.version,
    };
  }

  #watchExpiry(identity: Identity): void {
    clearTimeout(this.#authTimer);
    const left = identity.expiresAt - Date.now();
    this.#authTimer = setTimeout(
      () => {
        if (left > LONGEST_TIMER) this.#watchExpiry(identity);
        else this.drain('the token has expired', 5000, { code: 'invalid_token' });
      },
      Math.min(Math.max(left, 0), LONGEST_TIMER),
    );
    this.#authTimer.unref();
  }

  async #register(request: TunnelRequest): Promise<void> {
    const identity = this.#identity;
    const record = this.#record;
    if (identity === undefined || record === undefined) return;
    try {
      const name = normalizeTunnelName(request.subdomain, { baseDomain: this.#options.baseDomain });
      if (!isNameAllowed(identity, name)) {
        throw new CulvertError('invalid_name', refusedName(name));
      }
      const policy = request.policy === undefined ? {} : { policy: parsePolicy(request.policy) };
      await this.#options.registry.register(
        record,
        { name, localAddr: request.local_addr ?? '', healthy: request.healthy ?? true, ...policy },
        Math.min(this.#options.maxTunnelsPerAccount, identity.maxTunnels ?? Number.POSITIVE_INFINITY),
      );
      this.#replyTunnel(FrameType.RegisterTunnel, {
        subdomain: request.subdomain,
        success: true,
        public_url: this.#options.publicUrl(name),
      });
    } catch (error) {
      this.#refuseTunnel(FrameType.RegisterTunnel, request, error);
    }
  }

  async #unregister(request: TunnelRequest): Promise<void> {
    const record = this.#record;
    if (record === undefined) return;
    try {
      const name = normalizeTunnelName(request.subdomain, { baseDomain: this.#options.baseDomain });
      await this.#options.registry.unregister(record, name);
      this.#replyTunnel(FrameType.UnregisterTunnel, { subdomain: request.subdomain, success: true });
    } catch (error) {
      this.#refuseTunnel(FrameType.UnregisterTunnel, request, error);
    }
  }

  #refuseTunnel(type: number, request: TunnelRequest, error: unknown): void {
    if (!(error instanceof CulvertError)) throw error;
    this.#options.log.warn(
      { agent: this.#identity?.agentId, tunnel: request.subdomain, code: error.code },
      error.message,
    );
    this.#replyTunnel(type, { subdomain: request.subdomain, success: false, code: error.code, message: error.message });
  }

  #reply(message: AuthResponse): void {
    this.#session.send(FrameType.AuthResponse, 0, message);
  }

  #replyTunnel(type: number, message: TunnelResponse): void {
    this.#session.send(type, Flag.Ack, message);
  }

  #onGoAway(message: GoAway): void {
    this.#options.log.info({ agent: this.#identity?.agentId, reason: message.reason }, 'agent goes away');
    void this.#withdraw();
  }

  #onClosed(code: ErrorCode | undefined, message: string): void {
    this.#closed = true;
    clearTimeout(this.#authTimer);
    if (this.#record === undefined) return;
    this.#options.table.remove(this, this.#record);
    this.#options.log.info(
      { agent: this.#identity?.agentId, session: this.#record.id, code, reason: message },
      'agent disconnected',
    );
    void this.#withdraw();
  }

  async #withdraw(): Promise<void> {
    if (this.#record === undefined) return;
    try {
      await this.#options.registry.closeSession(this.#record);
    } catch (error) {
      // The node's lease, not this call, is what finally removes the endpoints.
      this.#options.log.warn(
        { err: error, session: this.#record.id },
        'the session could not be taken out of the registry',
      );
    }
  }
}

function refusedName(name: string): string {
  const proof = name.includes('.')
    ? 'its claim "names" must list this custom domain'
    : 'its claim "names" leaves it out';
  return `the token does not allow the name ${name}: ${proof}; ask for a token made with --names ${name}`;
}

function refuseStream(stream: Stream): StreamSink {
  throw new CulvertError('invalid_frame', `stream ${stream.id}: agents do not open streams`);
}
