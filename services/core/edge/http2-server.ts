import {
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { Connections, Stage } from './connections.ts';
import type { VisitorHandler } from './exchange.ts';
import { Http2Exchange } from './http2-exchange.ts';
import { readHttp2 } from './validate.ts';
import type { VisitorPeer } from './visitor-connection.ts';

export interface Http2Options {
  readonly handler: VisitorHandler;
  readonly connections: Connections;
  readonly maxHeaderSize: number;
  /** Milliseconds without an open stream after which the connection is closed. */
  readonly keepAliveTimeout: number;
  readonly stallTimeout: number;
}

const MAX_STREAMS = 256;
/** Credit for one upload (16 Mbit/s at 128 ms of round trip) and for all of a connection. */
const STREAM_WINDOW = 256 * 1024;
const CONNECTION_WINDOW = 1024 * 1024;
/** Milliseconds that a peer has for its FIN after ours. */
const LINGER_MS = 1_000;

/** Speaks HTTP/2 on sockets that are handed to it. */
export class Http2Server {
  readonly #options: Http2Options;
  readonly #session: ServerOptions;

  constructor(options: Http2Options) {
    this.#options = options;
    this.#session = {
      settings: {
        maxConcurrentStreams: MAX_STREAMS,
        initialWindowSize: STREAM_WINDOW,
        maxHeaderListSize: options.maxHeaderSize,
        enablePush: false,
      },
      // Fields are bounded by bytes; 128 pairs, node's default, is less than some visitors' cookies come in.
      maxHeaderListPairs: 1024,
      maxSendHeaderBlockLength: 256 * 1024,
      // MB. Beyond it new streams are refused, so that unread answers cannot pile up.
      maxSessionMemory: 16,
      // CVE-2023-44487 (rapid reset): 1,000 resets at once are forgiven, then 33 a second; nghttp2 ends the session.
      streamResetBurst: 1_000,
      streamResetRate: 33,
      maxSessionInvalidFrames: 100,
      maxSessionRejectedStreams: 100,
      // A response's duplicates are the service's business; they pass as they do in HTTP/1.
      strictSingleValueFields: false,
    };
  }

  /** Bytes that were read already must have been unshifted. */
  accept(socket: Socket, peer: VisitorPeer): void {
    // HTTP/2 has its own half-close for each stream; a visitor's FIN ends everything.
    socket.allowHalfOpen = false;
    const session = performServerHandshake(socket, this.#session);
    const connection = new Http2Connection(session, socket, this.#options);
    this.#options.connections.replace(socket, connection);
    session.on('error', () => session.destroy());
    session.on('connect', () => {
      if (!session.destroyed) session.setLocalWindowSize(CONNECTION_WINDOW);
    });
    session.on('stream', (stream: ServerHttp2Stream, _headers: unknown, _flags: unknown, raw: string[]) => {
      this.#stream(stream, raw, connection, peer);
    });
  }

  #stream(stream: ServerHttp2Stream, raw: string[], connection: Http2Connection, peer: VisitorPeer): void {
    const request = readHttp2(raw, stream.endAfterHeaders, peer);
    const { fault } = request.fields;
    const exchange = new Http2Exchange(request, peer, stream, connection.onClosed);
    connection.opened(exchange);
    if (fault !== undefined) {
      exchange.fail(fault.code, fault.detail);
      return;
    }
    try {
      this.#options.handler.request(exchange);
    } catch {
      exchange.fail('internal_error');
    }
  }
}

/** One HTTP/2 connection and its open streams. */
class Http2Connection implements Stage {
  readonly #session: ServerHttp2Session;
  readonly #socket: Socket;
  readonly #options: Http2Options;
  readonly #exchanges = new Set<Http2Exchange>();
  #idleSince = Date.now();
  #endedAt: number | undefined;

  readonly onClosed = (exchange: Http2Exchange): void => {
    this.#exchanges.delete(exchange);
    if (this.#exchanges.size === 0) this.#idleSince = Date.now();
  };

  constructor(session: ServerHttp2Session, socket: Socket, options: Http2Options) {
    this.#session = session;
    this.#socket = socket;
    this.#options = options;
  }

  opened(exchange: Http2Exchange): void {
    this.#exchanges.add(exchange);
  }

  sweep(now: number): void {
    if (this.#session.destroyed) {
      // node:http2 waits for the peer's FIN after an orderly end, for as long as it takes.
      this.#endedAt ??= now;
      if (now - this.#endedAt > LINGER_MS) this.#socket.destroy();
      return;
    }
    for (const exchange of this.#exchanges) exchange.sweep(now, this.#options.stallTimeout);
    if (this.#exchanges.size > 0) return;
    const idle = now - this.#idleSince;
    if (idle > this.#options.keepAliveTimeout) this.#session.close();
    // A peer that does not even take the GOAWAY.
    if (idle > this.#options.keepAliveTimeout + this.#options.stallTimeout) this.#session.destroy();
  }

  /** Each stream reports its own end. */
  closed(): void {}

  destroy(): void {
    this.#session.destroy();
    this.#socket.destroy();
  }

  closeGracefully(): void {
    this.#session.close();
  }
}
