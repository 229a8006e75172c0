import type { AddressInfo, Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import type { RequestHead } from '../../../shared/protocol/heads.ts';
import type { Session } from '../../../shared/protocol/session.ts';
import type { Stream, StreamSink, Upstream } from '../../../shared/protocol/stream-types.ts';
import type { NodeId, SessionRef } from '../../../shared/registry/registry.ts';
import { type ClusterIdentity, certifiedNodeId } from '../../../shared/tls/cluster-identity.ts';
import { type LinkSessionOptions, linkSession } from './link-session.ts';
import { takeEndpoint } from './meta.ts';
import { bridge } from './stream-bridge.ts';

export interface RelayListenerOptions extends LinkSessionOptions {
  readonly host: string | undefined;
  readonly port: number;
  readonly identity: ClusterIdentity;
  readonly log: Logger;
  /**
   * The agent session of this node that serves the request, or undefined. Must never return a link to another node: that
   * a stream from a link goes to an agent, and nowhere else, is what keeps a request to one hop.
   * @param endpoint the session that the entry node chose, if it named one
   */
  readonly pickLocal: (head: RequestHead, endpoint: SessionRef | undefined) => Upstream | undefined;
  /** Takes a call to this node. What it throws resets the stream with its code. */
  readonly onCall: (
    peer: NodeId,
    stream: Stream,
    head: RequestHead,
    body: Buffer | undefined,
    end: boolean,
  ) => StreamSink;
  /** Links at once, those that are being replaced or have not proved themselves yet included. Default 1,024. */
  readonly maxLinks?: number;
}

const MAX_LINKS = 1024;
const TLS_HANDSHAKE_TIMEOUT = 5000;
/** After the deadline of a drain, for the last frames to leave. Milliseconds. */
const DRAIN_GRACE = 1000;

/**
 * Takes requests that arrived at other nodes for agents of this one. Only nodes of the cluster get in: TLS 1.3 with a
 * certificate of the cluster's authority on both sides, on a port of its own, so nothing a visitor sends can come here.
 */
export class RelayListener {
  readonly #options: RelayListenerOptions;
  readonly #server: Server;
  readonly #sessions = new Map<Session, NodeId>();
  /** Also those whose handshake is not done. */
  readonly #connections = new Set<Socket>();

  constructor(options: RelayListenerOptions) {
    this.#options = options;
    this.#server = createServer(
      { ...tlsOf(options.identity), handshakeTimeout: TLS_HANDSHAKE_TIMEOUT, noDelay: true },
      (socket) => this.#accept(socket),
    );
    this.#server.maxConnections = options.maxLinks ?? MAX_LINKS;
    this.#server.on('connection', (socket: Socket) => {
      this.#connections.add(socket);
      socket.once('close', () => this.#connections.delete(socket));
    });
    this.#server.on('tlsClientError', (error, socket) => {
      // With a listener for this event Node leaves the socket open, also after the handshake timeout.
      socket.destroy();
      options.log.debug({ err: error, remote: socket.remoteAddress }, 'TLS handshake on the relay port failed');
    });
  }

  get isListening(): boolean {
    return this.#server.listening;
  }

  /** Host and port, after `listen`. */
  get address(): AddressInfo {
    return this.#server.address() as AddressInfo;
  }

  /** Nodes that have a link to this one now. */
  get peers(): ReadonlySet<NodeId> {
    return new Set(this.#sessions.values());
  }

  /** Requests in flight that came from other nodes. */
  get streams(): number {
    let streams = 0;
    for (const session of this.#sessions.keys()) streams += session.load;
    return streams;
  }

  /** @throws CulvertError `invalid_config` when the address cannot be used */
  async listen(): Promise<void> {
    const { port, host } = this.#options;
    await new Promise<void>((resolve, reject) => {
      // Stays for good: running out of descriptors while accepting is an `error` event too, and must not end the process.
      this.#server.on('error', (error) => {
        this.#options.log.error({ err: error }, 'the relay listener failed');
        reject(
          new CulvertError('invalid_config', `relay-addr: cannot listen on ${host ?? ''}:${port}: ${error.message}`),
        );
      });
      this.#server.listen({ port, ...(host === undefined ? {} : { host }) }, () => resolve());
    });
  }

  /** Uses another identity of the same cluster for links from now on. */
  reloadTls(identity: ClusterIdentity): void {
    this.#server.setSecureContext(tlsOf(identity));
  }

  /**
   * Takes no more links and streams, and waits until those here are done.
   * @param deadline milliseconds; then what is left is cut off
   */
  async drain(deadline: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#sessions.keys()) {
      session.goAway('the node is shutting down', deadline, { code: 'node_draining' });
    }
    const giveUp = setTimeout(() => {
      for (const socket of this.#connections) socket.destroy();
    }, deadline + DRAIN_GRACE);
    await closed;
    clearTimeout(giveUp);
  }

  #accept(socket: TLSSocket): void {
    const peer = certifiedNodeId(socket.getPeerX509Certificate()?.subjectAltName);
    const { log } = this.#options;
    if (peer === undefined || !this.#server.listening) {
      socket.on('error', (error) => log.debug({ err: error }, 'a refused relay link failed'));
      socket.destroy();
      return;
    }
    const session: Session = linkSession(socket, 'acceptor', this.#options, {
      onControl: () => {
        throw new CulvertError('invalid_frame', 'control messages are not for relay links');
      },
      onStream: (stream, head, body, end) => this.#onStream(stream, head, body, end),
      onCall: (stream, head, body, end) => this.#options.onCall(peer, stream, head, body, end),
      onGoAway: (message) => log.debug({ peer, reason: message.reason }, 'relay link from a node goes away'),
      onClosed: (code, message) => {
        this.#sessions.delete(session);
        log.info({ peer, code, reason: message }, 'relay link from a node closed');
      },
    });
    this.#sessions.set(session, peer);
    // The peer's certificate is its authentication.
    session.authenticated();
    log.info({ peer, remote: socket.remoteAddress }, 'relay link from a node opened');
  }

  /** What is thrown here resets the stream with its code. */
  #onStream(stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean): StreamSink {
    const { endpoint, rest } = takeEndpoint(head.meta);
    const upstream = this.#options.pickLocal(head, endpoint);
    if (upstream === undefined) throw new CulvertError('not_processed', 'no agent session here');
    return bridge(stream, upstream, rest === head.meta ? head : { ...head, meta: rest }, body, end);
  }
}

function tlsOf({ ca, cert, key }: ClusterIdentity) {
  return { ca, cert, key, minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true } as const;
}
