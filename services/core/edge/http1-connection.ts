import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { resetSocket } from '../../../shared/net/reset-socket.ts';
import type { Stage } from './connections.ts';
import type { VisitorPeer } from './visitor-connection.ts';

/** An exchange, seen from its connection. */
export interface ActiveExchange {
  readonly headSent: boolean;
  /** The request body is wanted and incomplete, and no answer has begun: silence is the visitor's doing. */
  readonly awaitsBody: boolean;
  readonly bodyIncomplete: boolean;
  connectionClosed(): void;
  /** The request body is malformed or stopped: answers 400 if nothing was sent, and reports the visitor as gone. */
  visitorFault(detail: string): void;
}

/** Requests of one connection that are in progress at once; those behind them in a pipeline wait. */
const MAX_IN_PROGRESS = 64;
/** Requests that wait so. One read holds more only when they are far smaller than any browser's. */
const MAX_WAITING = 1024;
/** What is read and thrown away of a request body after its answer, before the connection is given up. */
const DRAIN_BYTES = 1024 * 1024;
const DRAIN_MS = 5_000;

/** One HTTP/1 connection: which of its exchanges are open, and whether it still makes progress. */
export class Http1Connection implements Stage {
  readonly socket: Socket;
  readonly peer: VisitorPeer;
  /** True once its framing cannot be relied on: nothing more that arrives on it is a request. */
  poisoned = false;
  readonly #active = new Set<ActiveExchange>();
  readonly #stallTimeout: number;
  #waiting: (() => void)[] = [];
  #isEnding = false;
  #written = 0;
  #read = 0;
  #writtenAt = 0;
  #readAt = 0;
  #drained: IncomingMessage | undefined;
  #drainFrom = 0;
  #drainUntil = 0;
  /** `bytesRead` when the last answer ended; -1 before the first: what came since is the start of a request. */
  #readAtEnd = -1;

  /** @param stallTimeout milliseconds without progress after which the visitor counts as gone */
  constructor(socket: Socket, peer: VisitorPeer, stallTimeout: number) {
    this.socket = socket;
    this.peer = peer;
    this.#stallTimeout = stallTimeout;
  }

  /** True when answers on this connection have to say that it ends. */
  get ending(): boolean {
    return this.poisoned || this.peer.state.closing;
  }

  get isIdle(): boolean {
    return this.#active.size === 0;
  }

  /** More of a pipeline has come than may wait. */
  get isFull(): boolean {
    return this.#waiting.length >= MAX_WAITING;
  }

  /** Starts a request now or in its turn: one visitor's pipeline must not take a tunnel's streams from everybody else. */
  admit(start: () => void): void {
    if (this.#active.size - this.#waiting.length <= MAX_IN_PROGRESS) start();
    else this.#waiting.push(start);
  }

  opened(exchange: ActiveExchange): void {
    this.#active.add(exchange);
  }

  finished(exchange: ActiveExchange): void {
    this.#active.delete(exchange);
    const next = this.#waiting.shift();
    // Not within this call: answers that need no waiting would nest as deep as the pipeline is long.
    if (next !== undefined) queueMicrotask(next);
    this.#readAtEnd = this.socket.bytesRead;
  }

  /** Closes after what was written, in the middle of a message whose framing shows that it is incomplete. */
  breakOff(): void {
    this.poisoned = true;
    // node:http holds the chunks of one tick back until the next.
    process.nextTick(() => this.#endSoon());
  }

  /** Breaks the connection so that it cannot pass for an orderly end: TCP RST, or TLS without its closing alert. */
  reset(): void {
    if (this.peer.scheme === 'https') this.socket.destroy();
    else resetSocket(this.socket);
  }

  /** The answer is complete and the rest of the request is not wanted: bounds what is read of it. */
  drain(request: IncomingMessage): void {
    this.#drained = request;
    this.#drainFrom = this.socket.bytesRead;
    this.#drainUntil = Date.now() + DRAIN_MS;
    request.resume();
  }

  sweep(now: number): void {
    if (this.#drained !== undefined) this.#sweepDrain(this.#drained, now);
    const pending = this.socket.writableLength;
    const written = this.socket.bytesWritten - pending;
    if (pending === 0 || written !== this.#written) this.#writtenAt = now;
    this.#written = written;
    if (now - this.#writtenAt > this.#stallTimeout) this.socket.destroy();
    this.#sweepBody(now);
    // A request after the poison was not answered, so there is no last answer that would close the connection.
    if (this.poisoned && this.isIdle && pending === 0) this.#endSoon();
  }

  /** The bytes after the open requests, or the body of the last of them, are not HTTP. */
  parseFailed(): void {
    this.poisoned = true;
    for (const exchange of this.#active)
      if (exchange.bodyIncomplete) exchange.visitorFault('the request body is not valid');
  }

  closed(): void {
    this.#waiting = [];
    for (const exchange of this.#active) exchange.connectionClosed();
    this.#active.clear();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /**
   * Called again and again while the listener closes. node:http's closeIdleConnections does not do: it destroys
   * connections whose answer has been ended but not been written out yet.
   */
  closeGracefully(): void {
    if (this.isIdle && this.socket.bytesRead === this.#readAtEnd) {
      this.#endSoon();
    }
  }

  /** Each call of `destroySoon` would leave a listener behind. */
  #endSoon(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.socket.destroySoon();
  }

  #sweepBody(now: number): void {
    const read = this.socket.bytesRead;
    let waits = false;
    for (const exchange of this.#active) waits ||= exchange.awaitsBody;
    if (!waits || read !== this.#read) this.#readAt = now;
    this.#read = read;
    if (now - this.#readAt <= this.#stallTimeout) return;
    for (const exchange of this.#active)
      if (exchange.awaitsBody) exchange.visitorFault('the request body stopped coming');
  }

  #sweepDrain(request: IncomingMessage, now: number): void {
    if (request.complete) this.#drained = undefined;
    else if (now > this.#drainUntil || this.socket.bytesRead - this.#drainFrom > DRAIN_BYTES) this.socket.destroy();
  }
}
