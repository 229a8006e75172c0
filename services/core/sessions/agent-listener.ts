import type { AddressInfo, Socket } from 'node:net';
import { createServer, DEFAULT_CIPHERS, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { SessionRecord } from '../../../shared/registry/registry.ts';
import { plainAddress } from '../edge/trust.ts';
import { AgentSession, type AgentSessionOptions } from './agent-session.ts';
import type { Way } from './session-table.ts';

export interface AgentListenerOptions extends AgentSessionOptions {
  readonly host: string | undefined;
  readonly port: number;
  /** PEM. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
}

/** Connections that may be on the way to proving themselves, beyond the sessions that are allowed. */
const MAX_UNAUTHENTICATED = 256;
const TLS_HANDSHAKE_TIMEOUT = 10_000;
/** After the deadline of a drain, for the last frames to leave. Milliseconds. */
const CLOSE_GRACE = 500;
/**
 * AES-128 first: on hardware with AES instructions it costs two thirds of AES-256 (measured: 3.0 against 2.0 GB/s), and RFC
 * 8446 section 9.1 makes it the one that every TLS 1.3 peer has. The rest are Node's own.
 */
const CIPHERS = `TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:${DEFAULT_CIPHERS}`;

/** Accepts agents over TLS 1.2 or later and keeps their sessions. */
export class AgentListener {
  readonly #server: Server;
  readonly #options: AgentListenerOptions;
  readonly #sessionOptions: AgentSessionOptions;
  readonly #open = new Set<AgentSession>();
  /** Also those whose handshake is not done. */
  readonly #connections = new Set<Socket>();
  #draining = false;

  constructor(options: AgentListenerOptions) {
    this.#options = options;
    this.#sessionOptions = { ...options, isDraining: () => this.#draining };
    this.#server = createServer(
      {
        ...secureContext(options.cert, options.key),
        handshakeTimeout: TLS_HANDSHAKE_TIMEOUT,
        noDelay: true,
      },
      (socket) => this.#accept(socket),
    );
    this.#server.maxConnections = options.maxConnections + MAX_UNAUTHENTICATED;
    this.#server.on('connection', (socket: Socket) => {
      this.#connections.add(socket);
      socket.once('close', () => this.#connections.delete(socket));
    });
    this.#server.on('tlsClientError', (error, socket) => {
      // With a listener for this event Node leaves the socket open, also after the handshake timeout.
      socket.destroy();
      options.log.debug({ err: error, remote: socket.remoteAddress }, 'TLS handshake with an agent failed');
    });
  }

  get isListening(): boolean {
    return this.#server.listening;
  }

  /** Host and port that agents can reach, after `listen`. */
  get address(): AddressInfo {
    return this.#server.address() as AddressInfo;
  }

  /** @throws CulvertError `invalid_config` when the address cannot be used */
  async listen(): Promise<void> {
    const { port, host } = this.#options;
    await new Promise<void>((resolve, reject) => {
      // Stays for good: running out of descriptors while accepting is an `error` event too, and must not end the process.
      this.#server.on('error', (error) => {
        this.#options.log.error({ err: error }, 'the agent listener failed');
        const why = `agent-addr: cannot listen on ${host ?? ''}:${port}: ${error.message}`;
        reject(new CulvertError('invalid_config', why, { cause: error }));
      });
      this.#server.listen({ port, ...(host === undefined ? {} : { host }) }, () => resolve());
    });
  }

  /** Replaces the certificate for connections from now on. */
  reloadTls(cert: string, key: string): void {
    this.#server.setSecureContext(secureContext(cert, key));
  }

  /** Whether new agents are refused. */
  get isDraining(): boolean {
    return this.#draining;
  }

  /**
   * Refuses new agents, and tells those here to go elsewhere. The port stays open: an agent that comes is told where to go.
   * @param deadline milliseconds for the streams of those here
   * @param nextFor the next node for a session, if there is one that its agent can reach
   */
  drain(deadline: number, nextFor: (session: SessionRecord) => Way | undefined): void {
    this.#draining = true;
    for (const session of this.#open) {
      session.drain('the node is draining', deadline, {
        code: 'node_draining',
        // Until its agent has a session elsewhere nothing else may be there to serve its tunnels.
        keepServing: true,
        next: session.ref && nextFor(session.ref),
      });
    }
  }

  /** Takes agents again. */
  resume(): void {
    this.#draining = false;
  }

  /**
   * Closes the port, tells agents that have not been told to go, and waits until their streams are done.
   * @param deadline milliseconds; then what is left is cut off
   */
  async close(deadline: number): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#open) session.drain('the node is shutting down', deadline, { code: 'node_draining' });
    const giveUp = setTimeout(() => {
      for (const session of this.#open) session.close('node_draining', 'the drain deadline has passed');
    }, deadline);
    const cutOff = setTimeout(() => {
      for (const socket of this.#connections) socket.destroy();
    }, deadline + CLOSE_GRACE);
    await closed;
    clearTimeout(giveUp);
    clearTimeout(cutOff);
  }

  #accept(socket: TLSSocket): void {
    const session: AgentSession = new AgentSession(socket, plainAddress(socket.remoteAddress), this.#sessionOptions);
    this.#open.add(session);
    socket.once('close', () => this.#open.delete(session));
  }
}

function secureContext(cert: string, key: string): SecureContextOptions {
  return { cert, key, minVersion: 'TLSv1.2', ciphers: CIPHERS, honorCipherOrder: true };
}
