import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { ResponseParser } from './http1-parser.ts';
import { addressOf, type Target, type TlsPolicy, tlsOptions } from './target.ts';

/** Whoever has a connection for the time of one exchange. */
export interface ConnectionUser {
  /** The first `length` bytes of `buffer` arrived; the buffer is reused as soon as this returns. */
  onSocketData(buffer: Buffer, length: number): void;
  /** The service closed its half. */
  onSocketEnd(): void;
  onSocketDrain(): void;
  /** The socket is gone; `reason` tells why, for people. */
  onSocketClose(reason: string): void;
}

/** Who made the connection and keeps it while nobody uses it. */
export interface ConnectionOwner {
  onReady(connection: Connection): void;
  /** Closed by the service, an error or the connect timeout; never after `destroy`. */
  onLost(connection: Connection, reason: string): void;
}

const READ_BYTES = 64 * 1024;
/** A read of this size is worth a buffer of its own; below, the copy is cheaper. */
const BULK_BYTES = READ_BYTES / 2;
/** So many reads below that, and the socket's own buffer is given up. */
const SMALL_READS = 16;

/**
 * Plain sockets read into one buffer while they carry small answers: a read is handled to its end before the next one
 * starts, and body bytes that have to stay are copied out at their real size. That spares an allocation of 64 KiB for each
 * read: measured, a fifth of the time that JavaScript spends on a small answer. A socket that fills its reads gets buffers
 * of its own, whose slices are passed on without a copy.
 */
const SHARED_BUFFER = Buffer.allocUnsafeSlow(READ_BYTES);

/** A socket to the service with the parser of its responses. Half-open is allowed: raw streams need it. */
export class Connection {
  readonly socket: Socket;
  readonly parser = new ResponseParser();
  /** What `onSocketData` is given now is overwritten by the next read: keep copies. */
  sharesBuffer = false;
  user: ConnectionUser | undefined;
  /** Has carried a whole exchange before. */
  reused = false;
  idleSince = 0;
  idleLimitMs = 0;
  readonly #owner: ConnectionOwner;
  #connectTimer: NodeJS.Timeout | undefined;
  #buffer = SHARED_BUFFER;
  /** More than 0 after a bulk read; counts down with each small one. */
  #bulkReads = 0;
  #ready = false;
  #gone = false;
  #reason = 'the service closed the connection';

  constructor(target: Target, policy: TlsPolicy, connectTimeoutMs: number, owner: ConnectionOwner) {
    this.#owner = owner;
    const address = { ...addressOf(target), allowHalfOpen: true };
    if (target.tls) {
      this.socket = connectTls({ ...address, ...tlsOptions(target, policy, 'http/1.1') });
      this.socket.on('secureConnect', () => this.#opened());
      this.socket.on('data', (chunk: Buffer) => this.#data(chunk, chunk.length));
    } else {
      this.socket = connectTcp({
        ...address,
        onread: {
          buffer: () => this.#nextBuffer(),
          callback: (length) => this.#read(length),
        },
      });
      this.socket.on('connect', () => this.#opened());
    }
    this.socket.setNoDelay(true);
    this.#connectTimer = setTimeout(() => {
      this.#reason = `no connection within ${connectTimeoutMs} ms`;
      this.socket.destroy();
    }, connectTimeoutMs);
    this.socket.on('end', () => this.#ended());
    this.socket.on('drain', () => this.user?.onSocketDrain());
    this.socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#reason = error.code ?? error.message;
    });
    this.socket.on('close', () => this.#closed());
  }

  /** Closes the socket at once; neither owner nor user hears of it. */
  destroy(): void {
    this.#gone = true;
    this.user = undefined;
    clearTimeout(this.#connectTimer);
    this.socket.destroy();
  }

  #opened(): void {
    clearTimeout(this.#connectTimer);
    if (this.#gone) return;
    this.#ready = true;
    this.#reason = 'the service closed the connection';
    // A socket with `onread` starts to flow only when it is told to, and would not report its end before.
    this.socket.resume();
    this.#owner.onReady(this);
  }

  /** Node asks for it before the first and after each read. A buffer whose bytes were all copied out stays. */
  #nextBuffer(): Buffer {
    if (this.#bulkReads === 0) this.#buffer = SHARED_BUFFER;
    else if (!this.sharesBuffer || this.#buffer === SHARED_BUFFER) this.#buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    return this.#buffer;
  }

  #read(length: number): boolean {
    if (length >= BULK_BYTES) this.#bulkReads = SMALL_READS;
    else if (this.#bulkReads > 0) this.#bulkReads--;
    // A small slice does not hold on to 64 KiB.
    this.sharesBuffer = length < BULK_BYTES || this.#buffer === SHARED_BUFFER;
    this.#data(this.#buffer, length);
    return true;
  }

  #data(buffer: Buffer, length: number): void {
    if (this.user !== undefined) this.user.onSocketData(buffer, length);
    // Bytes that nobody asked for: whatever they answer, it is not the next request.
    else if (!this.#gone) this.socket.destroy();
  }

  #ended(): void {
    if (!this.#ready) this.socket.destroy();
    else if (this.user !== undefined) this.user.onSocketEnd();
    else if (!this.#gone) this.socket.destroy();
  }

  #closed(): void {
    clearTimeout(this.#connectTimer);
    if (this.#gone) return;
    this.#gone = true;
    const { user } = this;
    this.user = undefined;
    this.#owner.onLost(this, this.#reason);
    user?.onSocketClose(this.#reason);
  }
}
