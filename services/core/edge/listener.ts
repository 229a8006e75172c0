import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { CulvertError } from '../../../shared/errors/codes.ts';
import { Connections } from './connections.ts';
import { renderRawError } from './error-reply.ts';
import type { VisitorHandler } from './exchange.ts';
import { HostTable } from './host.ts';
import { Http1Server } from './http1-server.ts';
import { Http2Server } from './http2-server.ts';
import { Lingering } from './linger.ts';
import { type Opened, Opening } from './opening.ts';
import { nextRequestId } from './request-id.ts';
import { type TlsCertificate, TlsPort } from './tls-port.ts';
import { createTrust, plainAddress } from './trust.ts';
import { type EdgeState, type Scheme, VisitorPeer } from './visitor-connection.ts';

export interface PublicListenerOptions {
  readonly handler: VisitorHandler;
  /** Domain whose direct subdomains are tunnels. */
  readonly baseDomain: string;
  /** Where plain HTTP/1 and HTTP/2 are accepted. `host` default: all addresses; `port` 0: any free one. */
  readonly host?: string | undefined;
  readonly port: number;
  /** A second port with TLS, where ALPN chooses between HTTP/2 and HTTP/1.1. */
  readonly tls?: (TlsCertificate & { readonly host?: string | undefined; readonly port: number }) | undefined;
  /** Addresses and CIDR ranges of proxies whose forwarding fields and PROXY headers are believed. Default none. */
  readonly trustedProxies?: readonly string[] | undefined;
  /** Trusted proxies begin each connection with a PROXY header, v1 or v2; without it they are cut off. Default false. */
  readonly proxyProtocol?: boolean | undefined;
  /** Connections at a time; above it the answer is 503. Default 65,536. */
  readonly maxVisitors?: number | undefined;
  /** Bytes of request line and fields. Default 96 KiB, so that a head fits into 128 KiB on the wire. */
  readonly maxHeaderSize?: number | undefined;
  /** Milliseconds for a request's head, and before it for the first bytes. Default 15,000. */
  readonly headersTimeout?: number | undefined;
  /** Milliseconds that an idle connection is kept. Default 75,000. */
  readonly keepAliveTimeout?: number | undefined;
  /** Milliseconds without progress after which a visitor that does not read, or not send, is given up. Default 120,000. */
  readonly stallTimeout?: number | undefined;
}

export interface PublicListener {
  /** Rejects with the system's error when a port cannot be had. */
  listen(): Promise<void>;
  /** Of the plain port. @throws CulvertError `internal_error` when not listening. */
  readonly address: AddressInfo;
  /** Of the TLS port. @throws CulvertError `internal_error` when there is none. */
  readonly tlsAddress: AddressInfo;
  /** Connections open now. */
  readonly visitors: number;
  /** New handshakes use this certificate. @throws CulvertError `invalid_config` when it is unusable, or without TLS. */
  reloadTls(cert: string | Buffer, key: string | Buffer): void;
  /**
   * Stops accepting, lets answers in flight finish and ends each connection after them. Resolves true when all did, false
   * when `deadlineMs` passed and the rest was cut off.
   */
  close(deadlineMs: number): Promise<boolean>;
}

export function createPublicListener(options: PublicListenerOptions): PublicListener {
  return new EdgeListener(options);
}

/** How often, in milliseconds, connections that become idle while closing are ended. */
const CLOSING_INTERVAL = 25;

class EdgeListener implements PublicListener {
  readonly #options: PublicListenerOptions;
  readonly #headersTimeout: number;
  readonly #state: EdgeState;
  readonly #connections = new Connections();
  readonly #lingering = new Lingering(this.#connections);
  readonly #http1: Http1Server;
  readonly #http2: Http2Server;
  readonly #tls: TlsPort | undefined;
  readonly #plainServer: Server;
  readonly #tlsServer: Server | undefined;
  readonly #sweepInterval: number;

  constructor(options: PublicListenerOptions) {
    this.#options = options;
    const { handler } = options;
    const connections = this.#connections;
    this.#headersTimeout = options.headersTimeout ?? 15_000;
    const shared = {
      handler,
      connections,
      lingering: this.#lingering,
      maxHeaderSize: options.maxHeaderSize ?? 96 * 1024,
      headersTimeout: this.#headersTimeout,
      keepAliveTimeout: options.keepAliveTimeout ?? 75_000,
      stallTimeout: options.stallTimeout ?? 120_000,
    };
    this.#sweepInterval = Math.max(20, Math.min(1_000, shared.stallTimeout / 4, this.#headersTimeout / 4));
    this.#state = {
      trust: createTrust(options.trustedProxies ?? []),
      hosts: new HostTable(options.baseDomain),
      closing: false,
    };
    this.#http1 = new Http1Server(shared);
    this.#http2 = new Http2Server(shared);
    this.#plainServer = listeningServer((socket) => this.#accept(socket, false));
    if (options.tls !== undefined) {
      this.#tls = this.#createTls(options.tls);
      this.#tlsServer = listeningServer((socket) => this.#accept(socket, true));
    }
  }

  async listen(): Promise<void> {
    const { host, port, tls } = this.#options;
    await listen(this.#plainServer, port, host);
    if (this.#tlsServer !== undefined && tls !== undefined) {
      try {
        await listen(this.#tlsServer, tls.port, tls.host);
      } catch (error) {
        this.#plainServer.close();
        this.#http1.close();
        throw error;
      }
    }
    this.#connections.startSweeping(this.#sweepInterval);
  }

  get address(): AddressInfo {
    return addressOf(this.#plainServer);
  }

  get tlsAddress(): AddressInfo {
    return addressOf(this.#tlsServer);
  }

  get visitors(): number {
    return this.#connections.size;
  }

  reloadTls(cert: string | Buffer, key: string | Buffer): void {
    if (this.#tls === undefined) throw new CulvertError('invalid_config', 'the public listener has no TLS port');
    try {
      this.#tls.reload({ cert, key });
    } catch (cause) {
      throw new CulvertError('invalid_config', 'the TLS certificate or key cannot be used', { cause });
    }
  }

  async close(deadlineMs: number): Promise<boolean> {
    this.#state.closing = true;
    this.#plainServer.close();
    this.#tlsServer?.close();
    this.#connections.closeGracefully();
    // Answers whose head went out before could not announce the end; their connections are ended when they become idle.
    const timer = setInterval(() => this.#connections.closeGracefully(), CLOSING_INTERVAL);
    const finished = await this.#connections.emptied(deadlineMs);
    clearInterval(timer);
    if (!finished) {
      this.#connections.destroyAll();
      await this.#connections.emptied(1_000);
    }
    this.#connections.stopSweeping();
    this.#http1.close();
    return finished;
  }

  #createTls(certificate: TlsCertificate): TlsPort {
    try {
      return new TlsPort(certificate, this.#headersTimeout, (socket, raw, announced) =>
        this.#secured(socket, raw, announced),
      );
    } catch (cause) {
      throw new CulvertError('invalid_config', 'the TLS certificate or key cannot be used', { cause });
    }
  }

  #accept(socket: Socket, tls: boolean): void {
    const full = this.#connections.size >= (this.#options.maxVisitors ?? 65_536);
    const address = plainAddress(socket.remoteAddress);
    const opening = new Opening(socket, {
      tls,
      proxyHeader: this.#options.proxyProtocol === true && this.#state.trust(address),
      timeout: this.#headersTimeout,
      onOpened: (opened) => this.#opened(socket, address, opened),
    });
    this.#connections.add(socket, opening);
    if (!full) opening.begin();
    else if (tls) socket.destroy();
    else this.#lingering.close(socket, renderRawError('overloaded', nextRequestId()));
  }

  #opened(socket: Socket, address: string, { protocol, announced }: Opened): void {
    if (protocol === 'tls') this.#tls?.accept(socket, announced);
    else this.#serve(socket, announced ?? address, 'http', protocol);
  }

  #secured(socket: TLSSocket, raw: Socket, announced: string | undefined): void {
    const address = announced ?? plainAddress(socket.remoteAddress);
    const stage = this.#connections.take(raw);
    if (stage === undefined) {
      socket.destroy();
      return;
    }
    this.#connections.add(socket, stage);
    this.#serve(socket, address, 'https', socket.alpnProtocol === 'h2' ? 'h2' : 'http1');
  }

  #serve(socket: Socket, address: string, scheme: Scheme, protocol: 'http1' | 'h2'): void {
    const peer = new VisitorPeer(address, scheme, this.#state);
    if (protocol === 'h2') this.#http2.accept(socket, peer);
    else this.#http1.accept(socket, peer);
  }
}

function listeningServer(onConnection: (socket: Socket) => void): Server {
  // Half-open, so that each half of an upgraded connection closes by itself. Keep-alive probes find visitors that vanished
  // without a word while nothing is being sent (event streams, long polls).
  const options = { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 };
  return createServer(options, onConnection);
}

async function listen(server: Server, port: number, host: string | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ port, host, backlog: 4096 }, resolve);
  await promise;
  server.removeListener('error', reject);
}

function addressOf(server: Server | undefined): AddressInfo {
  const address = server?.address();
  if (address === undefined || address === null || typeof address === 'string') {
    throw new CulvertError('internal_error', 'the public listener is not listening on this port');
  }
  return address;
}
