import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { Connections } from './connections.ts';
import { renderRawError } from './error-reply.ts';
import type { VisitorHandler } from './exchange.ts';
import { Http1Connection } from './http1-connection.ts';
import { Http1Exchange } from './http1-exchange.ts';
import type { Lingering } from './linger.ts';
import { nextRequestId } from './request-id.ts';
import { UpgradeExchange } from './upgrade-exchange.ts';
import { forwardedUpgrade, readHttp1 } from './validate.ts';
import type { VisitorPeer } from './visitor-connection.ts';

export interface Http1Options {
  readonly handler: VisitorHandler;
  readonly connections: Connections;
  readonly lingering: Lingering;
  readonly maxHeaderSize: number;
  readonly headersTimeout: number;
  readonly keepAliveTimeout: number;
  readonly stallTimeout: number;
}

/** Speaks HTTP/1 on sockets that are handed to it; it listens nowhere itself. */
export class Http1Server {
  readonly #options: Http1Options;
  readonly #server: Server;
  readonly #connections = new WeakMap<Duplex, Http1Connection>();

  constructor(options: Http1Options) {
    this.#options = options;
    const server = createServer({
      insecureHTTPParser: false,
      maxHeaderSize: options.maxHeaderSize,
      headersTimeout: options.headersTimeout,
      requestTimeout: 0,
      keepAliveTimeout: options.keepAliveTimeout,
      connectionsCheckingInterval: Math.max(50, Math.min(1_000, options.headersTimeout / 4)),
      // A missing Host is refused by us, so that the reply has our code and request id.
      requireHostHeader: false,
      shouldUpgradeCallback: (req) => this.#shouldUpgrade(req),
      // Requests without a body need no stream that ends.
      optimizeEmptyRequests: true,
    });
    // Above a limit node:http drops fields without a word; maxHeaderSize bounds them already.
    server.maxHeadersCount = 0;
    server.on('request', (req, res) => this.#request(req, res));
    server.on('checkContinue', (req, res) => this.#request(req, res));
    server.on('checkExpectation', (req, res) => this.#request(req, res));
    server.on('upgrade', (req: IncomingMessage, _socket, head: Buffer) => this.#upgrade(req, head));
    server.on('connect', (req: IncomingMessage) => this.#connect(req));
    server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#clientError(error, socket));
    // Starts the check for headersTimeout, which node:http ties to its own listening.
    server.emit('listening');
    this.#server = server;
  }

  /** Bytes that were read already must have been unshifted. */
  accept(socket: Socket, peer: VisitorPeer): void {
    const connection = new Http1Connection(socket, peer, this.#options.stallTimeout);
    this.#connections.set(socket, connection);
    this.#options.connections.replace(socket, connection);
    this.#server.emit('connection', socket);
  }

  /** Stops the timer that checks headersTimeout. */
  close(): void {
    this.#server.close(() => {});
  }

  #request(req: IncomingMessage, res: ServerResponse): void {
    const connection = this.#connections.get(req.socket);
    if (connection === undefined || connection.poisoned) return;
    const request = readHttp1(req, connection.peer);
    const { fault } = request.fields;
    const exchange = new Http1Exchange(request, connection, req, res, undefined);
    const isFull = connection.isFull;
    connection.opened(exchange);
    if (isFull) {
      // Answered in its turn; what follows was never looked at and may be sent again on another connection.
      connection.poisoned = true;
      exchange.fail('overloaded', 'too many requests wait on this connection');
    } else if (fault === undefined) {
      connection.admit(() => this.#start(exchange));
    } else {
      // What follows a request with doubtful framing may be a smuggled one.
      connection.poisoned = true;
      exchange.fail(fault.code, fault.detail);
    }
  }

  #start(exchange: Http1Exchange): void {
    if (!exchange.hasBody || exchange.contentLength !== undefined) {
      dispatch(this.#options.handler, exchange);
      return;
    }
    // The chunks that came with the head are parsed after this event: when they are malformed nobody else sees the request.
    setImmediate(() => {
      if (!exchange.isOver) dispatch(this.#options.handler, exchange);
    });
  }

  #shouldUpgrade(req: IncomingMessage): boolean {
    const connection = this.#connections.get(req.socket);
    // A body would have to be read first, and answers in flight would mix with the new protocol: the request is then
    // an ordinary one, as RFC 9110 section 7.8 allows.
    return (
      connection !== undefined &&
      !connection.poisoned &&
      connection.isIdle &&
      req.httpVersion === '1.1' &&
      req.headers['content-length'] === undefined &&
      req.headers['transfer-encoding'] === undefined &&
      forwardedUpgrade(req.headers.upgrade) !== undefined
    );
  }

  #upgrade(req: IncomingMessage, head: Buffer): void {
    const connection = this.#connections.get(req.socket);
    if (connection === undefined) {
      req.socket.destroy();
      return;
    }
    const request = readHttp1(req, connection.peer);
    const { fault, upgrade } = request.fields;
    const exchange = new UpgradeExchange(request, connection, req, head, forwardedUpgrade(upgrade) ?? '');
    connection.opened(exchange);
    if (fault === undefined) dispatch(this.#options.handler, exchange);
    else exchange.fail(fault.code, fault.detail);
  }

  #connect(req: IncomingMessage): void {
    const connection = this.#connections.get(req.socket);
    if (connection === undefined || !connection.isIdle) req.socket.destroy();
    else this.#refuse(connection, 'method_not_allowed');
  }

  #clientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const connection = this.#connections.get(socket);
    const code = error.code ?? '';
    if (connection === undefined || !(code.startsWith('HPE_') || code === 'ERR_HTTP_REQUEST_TIMEOUT')) {
      socket.destroy();
      return;
    }
    // A raw reply now would be taken for the answer to an earlier request. The last answer in flight ends the connection.
    if (connection.poisoned || !connection.isIdle) connection.parseFailed();
    else if (code === 'HPE_HEADER_OVERFLOW') this.#refuse(connection, 'headers_too_large');
    else this.#refuse(connection, 'bad_request', code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : undefined);
  }

  #refuse(connection: Http1Connection, code: ErrorCode, status?: number): void {
    connection.poisoned = true;
    this.#options.lingering.close(connection.socket, renderRawError(code, nextRequestId(), status));
  }
}

function dispatch(handler: VisitorHandler, exchange: Http1Exchange): void {
  try {
    handler.request(exchange);
  } catch {
    exchange.fail('internal_error');
  }
}
