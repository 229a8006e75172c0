import { type ClientHttp2Session, connect as connectH2 } from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls, TLSSocket } from 'node:tls';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { PoolOptions } from './pool.ts';
import { addressOf, type Target, tlsOptions } from './target.ts';

/** Sessions to one target; each carries as many streams as the service allows. */
const MAX_SESSIONS = 16;
/** Milliseconds after which a session without streams is closed. */
const SESSION_IDLE_MS = 60_000;
/** Receive windows, bytes: of a stream and of a session (RFC 9113 section 6.9.2). Node's 64 KiB bind a fast local stream. */
const STREAM_WINDOW = 256 * 1024;
const SESSION_WINDOW = 4 * 1024 * 1024;

export interface H2User {
  onSession(session: H2Session): void;
  onConnectFailed(code: ErrorCode, message: string): void;
}

/** A session that the service has accepted, and how much of it is in use. */
export interface H2Session {
  readonly client: ClientHttp2Session;
  streams: number;
  /** Has carried a whole exchange before. */
  reused: boolean;
  idleSince: number;
}

/** HTTP/2 sessions to one target: a stream goes to the first that has room, and a new session is opened when none has. */
export class H2Pool {
  readonly target: Target;
  readonly #options: PoolOptions;
  readonly #sessions: H2Session[] = [];
  readonly #connecting = new Set<ClientHttp2Session>();
  readonly #waiting: H2User[] = [];
  #closed = false;

  constructor(target: Target, options: PoolOptions) {
    this.target = target;
    this.#options = options;
  }

  get size(): number {
    return this.#sessions.length + this.#connecting.size;
  }

  /**
   * Calls the user's `onSession`, at once when a session has room, or later `onConnectFailed`. Each `onSession` is paid
   * back with one `release`.
   * @throws CulvertError `overloaded` when too many wait already.
   */
  acquire(user: H2User): void {
    if (this.#closed) throw new CulvertError('node_draining', 'the agent is shutting down');
    const session = this.#withRoom();
    if (session !== undefined) {
      session.streams++;
      user.onSession(session);
      return;
    }
    if (this.#waiting.length >= (this.#options.maxWaiting ?? 1024)) {
      throw new CulvertError('overloaded', `every stream that ${this.target.url} allows is in use`);
    }
    this.#waiting.push(user);
    // One handshake at a time: what it brings may be enough for all who wait.
    if (this.#connecting.size === 0 && this.#sessions.length < MAX_SESSIONS) this.#connect();
  }

  cancel(user: H2User): void {
    const at = this.#waiting.indexOf(user);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  release(session: H2Session): void {
    session.streams--;
    session.reused = true;
    session.idleSince = performance.now();
    this.#serveWaiting();
  }

  sweep(now: number): void {
    for (const { client, streams, idleSince } of this.#sessions) {
      if (streams === 0 && now - idleSince > SESSION_IDLE_MS) client.close();
    }
  }

  /** Closes every session. Exchanges must have been ended before. */
  close(): void {
    this.#closed = true;
    this.#waiting.length = 0;
    for (const { client } of this.#sessions) client.destroy();
    for (const client of this.#connecting) client.destroy();
  }

  #withRoom(): H2Session | undefined {
    for (const session of this.#sessions) {
      const { client } = session;
      if (client.closed || client.destroyed) continue;
      if (session.streams < (client.remoteSettings.maxConcurrentStreams ?? Number.POSITIVE_INFINITY)) return session;
    }
    return undefined;
  }

  #connect(): void {
    const { target } = this;
    const address = addressOf(target);
    const socket = target.tls
      ? connectTls({ ...address, ...tlsOptions(target, this.#options.tls ?? {}, 'h2') })
      : connectTcp(address);
    socket.setNoDelay(true);
    const client = connectH2(`${target.tls ? 'https' : 'http'}://${target.authority}`, {
      createConnection: () => socket,
      settings: { enablePush: false, initialWindowSize: STREAM_WINDOW },
    });
    this.#connecting.add(client);
    const timeoutMs = this.#options.connectTimeoutMs ?? 5000;
    let reason = 'the service closed the connection';
    let code: ErrorCode = 'service_unreachable';
    const timer = setTimeout(() => {
      reason = `no HTTP/2 session within ${timeoutMs} ms`;
      client.destroy();
    }, timeoutMs);
    client.once('connect', () => {
      client.setLocalWindowSize(SESSION_WINDOW);
      // Connected, so whatever goes wrong before the settings is the service not speaking HTTP/2.
      code = 'bad_response';
      if (socket instanceof TLSSocket && socket.alpnProtocol !== 'h2') {
        reason = 'the service did not agree on h2 (ALPN)';
        client.destroy();
      }
    });
    client.once('remoteSettings', () => {
      clearTimeout(timer);
      this.#connecting.delete(client);
      if (this.#closed || client.destroyed) return;
      this.#sessions.push({ client, streams: 0, reused: false, idleSince: performance.now() });
      this.#serveWaiting();
    });
    client.on('remoteSettings', () => this.#serveWaiting());
    client.on('error', (error: NodeJS.ErrnoException) => {
      reason = error.code ?? error.message;
    });
    client.once('close', () => {
      clearTimeout(timer);
      const at = this.#sessions.findIndex((session) => session.client === client);
      if (at >= 0) this.#sessions.splice(at, 1);
      if (this.#connecting.delete(client)) this.#failed(code, reason);
      else this.#serveWaiting();
    });
  }

  #failed(code: ErrorCode, reason: string): void {
    // Streams of a session that lives will end and make room.
    if (this.#sessions.length > 0) return;
    const text = `cannot open an HTTP/2 session with ${this.target.url}: ${reason}`;
    for (const user of this.#waiting.splice(0)) user.onConnectFailed(code, text);
  }

  #serveWaiting(): void {
    while (!this.#closed && this.#waiting.length > 0) {
      const session = this.#withRoom();
      if (session === undefined) {
        if (this.#connecting.size === 0 && this.#sessions.length < MAX_SESSIONS) this.#connect();
        return;
      }
      session.streams++;
      this.#waiting.shift()?.onSession(session);
    }
  }
}
