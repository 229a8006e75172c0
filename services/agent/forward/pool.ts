import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import { Connection, type ConnectionOwner, type ConnectionUser } from './connection.ts';
import type { Target, TlsPolicy } from './target.ts';

/**
 * Which connections an exchange may have. A service may close an idle connection just when a request is written to it:
 * `any` is for requests that may then be sent again, `recent` for those that may not, `fresh` for the second attempt.
 */
export type Reuse = 'any' | 'recent' | 'fresh';

export interface PoolUser extends ConnectionUser {
  readonly reuse: Reuse;
  /** The connection is the user's until `release` or `discard`. */
  onConnection(connection: Connection): void;
  onConnectFailed(code: ErrorCode, message: string): void;
}

export interface PoolOptions {
  /** Idle connections that are kept. Default 256. */
  readonly maxIdle?: number | undefined;
  /** Milliseconds that a connection may be idle. Default 4000: shorter than the 5 s of Node's own server. */
  readonly idleTimeoutMs?: number | undefined;
  /** Default 5000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Connections to one target, idle and busy. Default 1024. */
  readonly maxConnections?: number | undefined;
  /** Exchanges that may wait for a connection; the next one gets `overloaded`. Default 1024. */
  readonly maxWaiting?: number | undefined;
  readonly tls?: TlsPolicy | undefined;
}

/** Milliseconds for which an idle connection counts as just used. */
const RECENT_MS = 500;

/** Keep-alive connections to one target, the last used first: the others may then time out. */
export class Pool implements ConnectionOwner {
  readonly target: Target;
  readonly #maxIdle: number;
  readonly #idleTimeoutMs: number;
  readonly #connectTimeoutMs: number;
  readonly #maxConnections: number;
  readonly #maxWaiting: number;
  readonly #tls: TlsPolicy;
  readonly #idle: Connection[] = [];
  readonly #all = new Set<Connection>();
  readonly #connecting = new Map<Connection, PoolUser>();
  readonly #waiting: PoolUser[] = [];
  #closed = false;

  constructor(target: Target, options: PoolOptions = {}) {
    this.target = target;
    this.#maxIdle = options.maxIdle ?? 256;
    this.#idleTimeoutMs = options.idleTimeoutMs ?? 4000;
    this.#connectTimeoutMs = options.connectTimeoutMs ?? 5000;
    this.#maxConnections = options.maxConnections ?? 1024;
    this.#maxWaiting = options.maxWaiting ?? 1024;
    this.#tls = options.tls ?? {};
  }

  /** Connections, whatever their state. */
  get size(): number {
    return this.#all.size;
  }

  get idle(): number {
    return this.#idle.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /**
   * Calls the user's `onConnection`, at once when an idle connection will do, or later `onConnectFailed`.
   * @throws CulvertError `overloaded` when too many wait already.
   */
  acquire(user: PoolUser): void {
    if (this.#closed) throw new CulvertError('node_draining', 'the agent is shutting down');
    const idle = user.reuse === 'fresh' ? undefined : this.#takeIdle(user.reuse);
    if (idle !== undefined) {
      idle.user = user;
      user.onConnection(idle);
      return;
    }
    const oldest = this.#all.size >= this.#maxConnections ? this.#idle.shift() : undefined;
    if (oldest !== undefined) this.#drop(oldest);
    if (this.#all.size < this.#maxConnections) this.#connect(user);
    else if (this.#waiting.length < this.#maxWaiting) this.#waiting.push(user);
    else throw new CulvertError('overloaded', `${this.target.url} has ${this.#maxConnections} connections in use`);
  }

  /** The user no longer wants what `acquire` has not delivered yet. */
  cancel(user: PoolUser): void {
    const at = this.#waiting.indexOf(user);
    if (at >= 0) {
      this.#waiting.splice(at, 1);
      return;
    }
    for (const [connection, waiting] of this.#connecting) {
      if (waiting === user) {
        this.discard(connection);
        return;
      }
    }
  }

  /** Gives back a connection whose exchange is over on both sides. `keepAliveSeconds`: the service's word, -1 for none. */
  release(connection: Connection, keepAliveSeconds: number): void {
    connection.user = undefined;
    connection.reused = true;
    connection.idleLimitMs = idleLimit(this.#idleTimeoutMs, keepAliveSeconds);
    const usable = connection.idleLimitMs > 0 && !this.#closed && !connection.socket.destroyed;
    if (usable && this.#waiting.length > 0 && this.#waiting[0]?.reuse !== 'fresh') {
      const next = this.#waiting.shift();
      connection.user = next;
      next?.onConnection(connection);
    } else if (usable && this.#waiting.length === 0 && this.#idle.length < this.#maxIdle) {
      connection.idleSince = performance.now();
      this.#idle.push(connection);
    } else {
      this.discard(connection);
    }
  }

  /** Closes a connection that cannot be used again. */
  discard(connection: Connection): void {
    this.#drop(connection);
    this.#serveWaiting();
  }

  /** Closes what has been idle for too long. */
  sweep(now: number): void {
    for (let i = this.#idle.length - 1; i >= 0; i--) {
      const connection = this.#idle[i];
      if (connection === undefined || now - connection.idleSince < connection.idleLimitMs) continue;
      this.#idle.splice(i, 1);
      this.#drop(connection);
    }
  }

  /** Closes every connection. Exchanges must have been ended before. */
  close(): void {
    this.#closed = true;
    this.#waiting.length = 0;
    this.#idle.length = 0;
    for (const connection of this.#all) this.#drop(connection);
  }

  onReady(connection: Connection): void {
    const user = this.#connecting.get(connection);
    this.#connecting.delete(connection);
    connection.user = user;
    user?.onConnection(connection);
  }

  onLost(connection: Connection, reason: string): void {
    const user = this.#connecting.get(connection);
    const at = this.#idle.lastIndexOf(connection);
    if (at >= 0) this.#idle.splice(at, 1);
    this.#connecting.delete(connection);
    this.#all.delete(connection);
    user?.onConnectFailed('service_unreachable', `cannot connect to ${this.target.url}: ${reason}`);
    this.#serveWaiting();
  }

  #takeIdle(reuse: 'any' | 'recent'): Connection | undefined {
    while (true) {
      const connection = this.#idle.at(-1);
      if (connection === undefined) return undefined;
      const idleMs = performance.now() - connection.idleSince;
      const { socket } = connection;
      if (idleMs >= connection.idleLimitMs || socket.destroyed || socket.readableEnded) {
        this.#idle.pop();
        this.#drop(connection);
      } else if (reuse === 'recent' && idleMs >= RECENT_MS) {
        return undefined;
      } else {
        this.#idle.pop();
        return connection;
      }
    }
  }

  #connect(user: PoolUser): void {
    const connection = new Connection(this.target, this.#tls, this.#connectTimeoutMs, this);
    this.#all.add(connection);
    this.#connecting.set(connection, user);
  }

  #drop(connection: Connection): void {
    this.#connecting.delete(connection);
    this.#all.delete(connection);
    connection.destroy();
  }

  #serveWaiting(): void {
    while (!this.#closed && this.#all.size < this.#maxConnections) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#connect(next);
    }
  }
}

/** The service closes after its own time: stay a second below it, or at half of it when it is that short. */
function idleLimit(ownMs: number, keepAliveSeconds: number): number {
  if (keepAliveSeconds < 0) return ownMs;
  return Math.min(ownMs, Math.max(keepAliveSeconds * 1000 - 1000, keepAliveSeconds * 500));
}
