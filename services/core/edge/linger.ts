import type { Socket } from 'node:net';
import type { Connections, Stage } from './connections.ts';

/** How long, in milliseconds, a refused visitor may take to read the reply and close. */
const LINGER_MS = 1_000;
/** Refused connections kept open at a time; beyond it they are dropped at once, reply or not. */
const MAX_LINGERING = 256;

/**
 * Sends a last reply and closes so that it arrives: closing while unread bytes wait in the receive buffer makes the
 * kernel send RST, which takes the reply from the visitor's buffer too (RFC 9112 section 9.6).
 */
export class Lingering {
  readonly #connections: Connections;
  #open = 0;

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  close(socket: Socket, reply: Buffer): void {
    if (this.#open >= MAX_LINGERING || !socket.writable) {
      socket.destroy();
      return;
    }
    this.#open += 1;
    socket.once('close', () => {
      this.#open -= 1;
    });
    // Takes the socket from node:http's parser, if it has it: what still comes is thrown away unread.
    socket.removeAllListeners('data');
    socket.removeAllListeners('end');
    socket.on('data', () => {});
    socket.on('end', () => socket.destroySoon());
    socket.on('error', () => socket.destroy());
    this.#connections.replace(socket, new LingeringStage(socket));
    socket.end(reply);
    socket.resume();
  }
}

class LingeringStage implements Stage {
  readonly #socket: Socket;
  readonly #until = Date.now() + LINGER_MS;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  sweep(now: number): void {
    if (now > this.#until) this.#socket.destroy();
  }

  closed(): void {}

  destroy(): void {
    this.#socket.destroy();
  }

  closeGracefully(): void {}
}
