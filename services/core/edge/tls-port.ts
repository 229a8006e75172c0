import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';

export interface TlsCertificate {
  /** PEM chain, leaf first. */
  readonly cert: string | Buffer;
  /** PEM private key. */
  readonly key: string | Buffer;
}

/** Does the TLS handshakes of connections that are handed to it; it listens nowhere itself. */
export class TlsPort {
  readonly #server: Server;
  /** By peer address and port, which name a connection as long as it lives: TLSSocket does not tell what it wraps. */
  readonly #raw = new Map<string, { readonly socket: Socket; readonly announced: string | undefined }>();

  /** @param onSecure called after a handshake, with the address that a PROXY header announced */
  constructor(
    certificate: TlsCertificate,
    handshakeTimeout: number,
    onSecure: (socket: TLSSocket, raw: Socket, announced: string | undefined) => void,
  ) {
    this.#server = createServer({
      cert: certificate.cert,
      key: certificate.key,
      ALPNProtocols: ['h2', 'http/1.1'],
      minVersion: 'TLSv1.2',
      handshakeTimeout,
      allowHalfOpen: true,
      noDelay: true,
    });
    this.#server.on('secureConnection', (socket) => {
      const entry = this.#raw.get(peerKey(socket));
      if (entry === undefined) socket.destroy();
      else onSecure(socket, entry.socket, entry.announced);
    });
    this.#server.on('tlsClientError', (_error, socket) => socket.destroy());
  }

  accept(socket: Socket, announced: string | undefined): void {
    const key = peerKey(socket);
    this.#raw.set(key, { socket, announced });
    socket.once('close', () => this.#raw.delete(key));
    this.#server.emit('connection', socket);
  }

  /** Later handshakes use this certificate; open connections keep theirs. @throws what node:tls says of a bad one. */
  reload(certificate: TlsCertificate): void {
    this.#server.setSecureContext({ cert: certificate.cert, key: certificate.key, minVersion: 'TLSv1.2' });
  }
}

function peerKey(socket: Socket): string {
  return `${socket.remoteAddress ?? ''} ${socket.remotePort ?? 0}`;
}
