import type { Socket } from 'node:net';
import type { Stage } from './connections.ts';
import { decodeProxyHeader, PROXY_HEADER_MAX } from './proxy-protocol.ts';

/** What the first bytes of a connection said. They are back in the socket, less a PROXY header. */
export interface Opened {
  readonly protocol: 'http1' | 'h2' | 'tls';
  /** The address that a PROXY header announced. */
  readonly announced: string | undefined;
}

export interface OpeningOptions {
  /** The peer must begin with a PROXY header. */
  readonly proxyHeader: boolean;
  /** The bytes after it are TLS, and ALPN will tell the protocol. */
  readonly tls: boolean;
  /** Milliseconds for all of it. */
  readonly timeout: number;
  readonly onOpened: (opened: Opened) => void;
}

/** HTTP/2's preface begins so (RFC 9113 section 3.4), and PRI is reserved: no HTTP/1 request can. */
const PREFACE = Buffer.from('PRI ', 'latin1');

/**
 * A connection whose protocol is not known yet. Looking costs one 'readable' for each connection, not for each request:
 * the socket then goes to node:http or node:http2 as if nobody had touched it, with the bytes put back.
 */
export class Opening implements Stage {
  readonly #socket: Socket;
  readonly #options: OpeningOptions;
  readonly #deadline: number;
  readonly #onReadable = (): void => this.#look();
  #bytes: Buffer = Buffer.alloc(0);
  #needsHeader: boolean;
  #announced: string | undefined;

  constructor(socket: Socket, options: OpeningOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#needsHeader = options.proxyHeader;
    this.#deadline = Date.now() + options.timeout;
    socket.on('error', this.#giveUp);
    // Half-open sockets do not close themselves after a FIN.
    socket.on('end', this.#giveUp);
  }

  begin(): void {
    if (this.#options.tls && !this.#needsHeader) this.#done('tls');
    else this.#socket.on('readable', this.#onReadable);
  }

  sweep(now: number): void {
    if (now > this.#deadline) this.#socket.destroy();
  }

  closed(): void {}

  destroy(): void {
    this.#socket.destroy();
  }

  /** Nothing was asked yet, so nothing is lost. */
  closeGracefully(): void {
    this.#socket.destroy();
  }

  readonly #giveUp = (): void => {
    this.#socket.destroy();
  };

  #look(): void {
    const chunk: unknown = this.#socket.read();
    if (!Buffer.isBuffer(chunk)) return;
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (this.#needsHeader && !this.#takeHeader()) return;
    if (this.#options.tls) {
      if (this.#bytes.length > 0) this.#done('tls');
      return;
    }
    const known = Math.min(this.#bytes.length, PREFACE.length);
    if (this.#bytes.compare(PREFACE, 0, known, 0, known) !== 0) this.#done('http1');
    else if (known === PREFACE.length) this.#done('h2');
  }

  /** True when a header was read and taken off. */
  #takeHeader(): boolean {
    const header = decodeProxyHeader(this.#bytes);
    if (header.state === 'done') {
      this.#needsHeader = false;
      this.#announced = header.address;
      this.#bytes = this.#bytes.subarray(header.length);
      return true;
    }
    if (header.state === 'bad' || this.#bytes.length > PROXY_HEADER_MAX) this.#socket.destroy();
    return false;
  }

  #done(protocol: Opened['protocol']): void {
    this.#socket.removeListener('readable', this.#onReadable);
    this.#socket.removeListener('error', this.#giveUp);
    this.#socket.removeListener('end', this.#giveUp);
    if (this.#bytes.length > 0) this.#socket.unshift(this.#bytes);
    this.#options.onOpened({ protocol, announced: this.#announced });
  }
}
