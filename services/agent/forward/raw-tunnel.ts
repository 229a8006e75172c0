import type { Socket } from 'node:net';
import type { Stream } from '../../../shared/protocol/stream-types.ts';

/** Milliseconds that a socket has for its last bytes after both halves of the stream have ended. */
const LINGER_MS = 10_000;

/** Bytes both ways between a stream and a socket after a 101, each half closed on its own. */
export class RawTunnel {
  readonly #socket: Socket;
  readonly #stream: Stream;
  #owed = 0;

  constructor(socket: Socket, stream: Stream) {
    this.#socket = socket;
    this.#stream = stream;
  }

  /** True when the socket ended in good order both ways. */
  get cleanlyClosed(): boolean {
    return this.#socket.readableEnded && this.#socket.writableFinished;
  }

  toSocket(chunk: Buffer, end: boolean): void {
    if (chunk.length > 0) {
      if (this.#socket.write(chunk)) this.#stream.consumed(chunk.length);
      else this.#owed += chunk.length;
    }
    // There is no 'drain' after end().
    if (end) this.#socket.end(() => this.drained());
  }

  toStream(chunk: Buffer): void {
    if (!this.#stream.write(chunk, false)) this.#socket.pause();
  }

  socketEnded(): void {
    this.#stream.end();
  }

  drained(): void {
    const bytes = this.#owed;
    this.#owed = 0;
    if (bytes > 0) this.#stream.consumed(bytes);
  }

  writable(): void {
    this.#socket.resume();
  }

  /** Both halves of the stream are over: what is queued still goes out, but not forever. */
  linger(): void {
    this.#socket.end();
    this.#socket.resume();
    this.#socket.setTimeout(LINGER_MS, () => this.#socket.destroy());
  }
}
