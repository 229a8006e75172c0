import { connect as connectTcp, isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { type ConnectionOptions, checkServerIdentity, connect as connectTls } from 'node:tls';
import { CulvertError, type ErrorCode } from '../../shared/errors/codes.ts';
import { Flag, FrameType } from '../../shared/protocol/frame.ts';
import {
  AuthResponse,
  FEATURES,
  type GoAway,
  MAX_REDIRECTS,
  parseMessage,
  REQUIRED_FEATURES,
  TunnelResponse,
} from '../../shared/protocol/messages.ts';
import { Session } from '../../shared/protocol/session.ts';
import type { Forwarder } from './forward/forwarder.ts';
import type { KnownNodes } from './known-nodes.ts';
import type { ServerAddress, TlsOptions, TunnelSpec } from './options.ts';

export interface LinkOptions {
  readonly server: ServerAddress;
  /** Host whose name the certificate must hold, where `server` is an address that a node named. */
  readonly certifiedHost: string;
  /** Name by which a balancer finds the node that was named; a certificate for it is as good. Undefined: any node. */
  readonly nodeName?: string | undefined;
  readonly tls: TlsOptions | false;
  /** How often this session was sent to another node already. */
  readonly redirects: number;
  readonly agentId: string | undefined;
  readonly instanceId: string;
  readonly slot: number;
  /** Sessions that the process keeps. */
  readonly sessions: number;
  readonly nodes: KnownNodes;
  readonly version: string;
  /** Milliseconds for the connection, the TLS handshake and the core's answer together. */
  readonly connectTimeout: number;
  readonly forwarder: Forwarder;
}

/** A node that the core names for a session. At least one of address and server name is given. */
export interface NextNode {
  /** host:port; undefined: where the user said. */
  readonly address: string | undefined;
  readonly serverName: string | undefined;
  readonly nodeId: string | undefined;
}

export interface LinkEvents {
  /** The core let the agent in. */
  onOpen(response: AuthResponse): void;
  onTunnel(response: TunnelResponse): void;
  /** The core names the node to connect to instead; the connection ends. */
  onRedirect(next: NextNode): void;
  /** The core asks to connect anew; the streams here go on. */
  onGoAway(message: GoAway): void;
  /** Once, also when the connection never came about. */
  onClosed(error: CulvertError): void;
}

/** One connection to a core node, from dialling to its end. */
export class Link {
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  #socket: Duplex | undefined;
  #session: Session | undefined;
  #timer: NodeJS.Timeout;
  #failure: CulvertError | undefined;
  #closed = false;

  /** Starts at once. @param token the agent's JWT */
  constructor(token: string, options: LinkOptions, events: LinkEvents) {
    this.#options = options;
    this.#events = events;
    this.#timer = setTimeout(() => {
      const { host, port } = options.server;
      this.#fail('timeout', `${host}:${port} did not let the agent in within ${options.connectTimeout} ms`);
    }, options.connectTimeout);
    const { host, port } = options.server;
    if (options.tls === false) {
      const socket = connectTcp({ host, port, noDelay: true }, () => this.#start(socket, token));
      this.#watch(socket);
    } else {
      const { ca, serverName, skipVerify } = options.tls;
      const socket = connectTls(
        {
          host,
          port,
          minVersion: 'TLSv1.2',
          rejectUnauthorized: !skipVerify,
          ...(ca === undefined ? {} : { ca }),
          ...namesToVerify(serverName ?? options.certifiedHost, host, options.nodeName),
        },
        () => {
          socket.setNoDelay(true);
          this.#start(socket, token);
        },
      );
      this.#watch(socket);
    }
  }

  get isOpen(): boolean {
    return this.#session?.state === 'open';
  }

  /** Milliseconds; undefined before the core let the agent in. */
  get roundTrip(): number | undefined {
    return this.#session === undefined || this.#session.state === 'handshake' ? undefined : this.#session.roundTrip;
  }

  get streams(): number {
    return this.#session?.load ?? 0;
  }

  register(tunnel: TunnelSpec, healthy: boolean): void {
    if (!this.isOpen) return;
    const { name, url, policy } = tunnel;
    this.#session?.send(FrameType.RegisterTunnel, 0, {
      subdomain: name,
      local_addr: url,
      healthy,
      ...(policy === undefined ? {} : { policy }),
    });
  }

  unregister(name: string): void {
    if (this.isOpen) this.#session?.send(FrameType.UnregisterTunnel, 0, { subdomain: name });
  }

  /** Gives the core a newer token for this session. */
  renew(token: string): void {
    if (this.isOpen) this.#session?.send(FrameType.AuthRequest, 0, this.#authRequest(token));
  }

  /** Takes no more streams and closes when those here are done. @param deadline milliseconds */
  drain(deadline: number): void {
    if (this.#session === undefined) this.#fail('connection_closed', 'the agent is shutting down');
    else this.#session.goAway('the agent is shutting down', deadline);
  }

  close(): void {
    this.#fail('connection_closed', 'the agent closed the connection');
  }

  #start(socket: Duplex, token: string): void {
    if (this.#closed) return;
    this.#session = new Session(
      socket,
      {
        onControl: (type, flags, payload) => this.#onControl(type, flags, payload),
        onStream: (stream, head, body, end) => this.#options.forwarder.accept(stream, head, body, end),
        onGoAway: (message) => this.#events.onGoAway(message),
        onClosed: (code, message) => this.#end(code ?? 'connection_closed', message),
      },
      { role: 'acceptor' },
    );
    this.#session.send(FrameType.AuthRequest, 0, this.#authRequest(token));
  }

  #authRequest(token: string): object {
    const { agentId, instanceId, slot, sessions, nodes, version } = this.#options;
    return {
      token,
      ...(agentId === undefined ? {} : { agent_id: agentId }),
      instance_id: instanceId,
      slot,
      redirects: this.#options.redirects,
      sessions,
      other_nodes: nodes.others(slot),
      failed_nodes: nodes.failed,
      features: FEATURES,
      version,
    };
  }

  #onControl(type: number, flags: number, payload: Buffer): void {
    if (type === FrameType.AuthResponse) {
      this.#onAuthResponse(parseMessage('Auth Response', AuthResponse, payload));
    } else if ((type === FrameType.RegisterTunnel || type === FrameType.UnregisterTunnel) && (flags & Flag.Ack) !== 0) {
      const response = parseMessage('Register Tunnel', TunnelResponse, payload);
      if (type === FrameType.RegisterTunnel) this.#events.onTunnel(response);
    } else {
      throw new CulvertError('invalid_frame', `frame type 0x${type.toString(16)} is not for the agent`);
    }
  }

  #onAuthResponse(response: AuthResponse): void {
    const session = this.#session;
    if (session === undefined) return;
    const next = {
      address: response.redirect_to,
      serverName: response.redirect_server_name,
      nodeId: response.redirect_node,
    };
    const isNamed = next.address !== undefined || next.serverName !== undefined;
    if (!response.success && isNamed && this.#options.redirects < MAX_REDIRECTS) {
      this.#events.onRedirect(next);
      this.close();
      return;
    }
    if (!response.success) {
      this.#fail(response.code ?? 'invalid_token', response.message ?? 'the core refused the agent');
      return;
    }
    if (session.state === 'handshake') {
      const missing = REQUIRED_FEATURES.filter((feature) => !(response.features ?? []).includes(feature));
      if (missing.length > 0) {
        this.#fail('unsupported_protocol', `the core lacks ${missing.join(', ')}`);
        return;
      }
      clearTimeout(this.#timer);
      if (response.heartbeat_ms !== undefined && response.dead_after_ms !== undefined) {
        session.setHeartbeat(response.heartbeat_ms, response.dead_after_ms);
      }
      session.authenticated();
    }
    this.#events.onOpen(response);
  }

  #watch(socket: Duplex): void {
    this.#socket = socket;
    // Until the session exists, and beside it afterwards: the first report of an end counts.
    socket.on('error', (error: NodeJS.ErrnoException) => this.#end('connection_closed', this.#describe(error)));
    socket.on('close', () => this.#end('connection_closed', 'the connection was closed'));
  }

  #describe(error: NodeJS.ErrnoException): string {
    const { host, port } = this.#options.server;
    if (error.code?.startsWith('ERR_TLS') || /certificate|self-signed/.test(error.message)) {
      return `the certificate of ${host}:${port} is not accepted: ${error.message}; give ca-cert, or tls-server-name if the name differs`;
    }
    const why =
      error instanceof AggregateError ? error.errors.map((each: Error) => each.message).join(', ') : error.message;
    return `${host}:${port}: ${why}`;
  }

  #fail(code: ErrorCode, message: string): void {
    if (this.#closed) return;
    this.#failure ??= new CulvertError(code, message);
    if (this.#session === undefined) this.#socket?.destroy();
    else this.#session.close(undefined, message);
    this.#end(code, message);
  }

  #end(code: ErrorCode, message: string): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#events.onClosed(this.#failure ?? new CulvertError(code, message));
  }
}

/**
 * SNI carries no addresses (RFC 6066 section 3); Node then checks the certificate against the host that is dialled. A core that
 * has proved its own name may name another node; its certificate then holds that name or, as all nodes' may, the usual one.
 */
function namesToVerify(name: string, dialled: string, nodeName: string | undefined): ConnectionOptions {
  if (nodeName !== undefined) {
    return {
      servername: nodeName,
      checkServerIdentity: (host, certificate) =>
        checkServerIdentity(host, certificate) && checkServerIdentity(name, certificate),
    };
  }
  return name === dialled || isIP(name) !== 0 ? {} : { servername: name };
}
