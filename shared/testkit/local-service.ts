import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer, type RequestListener } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';

export interface LocalService<S> {
  readonly port: number;
  /** `http://127.0.0.1:port`. */
  readonly url: string;
  readonly server: S;
  /** Connections that it holds now. */
  readonly sockets: ReadonlySet<Socket>;
  /** Ends it and every connection at once. */
  close(): Promise<void>;
}

/** A service on a free port of the loopback that speaks HTTP/1.1. */
export function startHttpService(handler: RequestListener): Promise<LocalService<HttpServer>> {
  // The largest head that Culvert carries must not be refused by the service of a test.
  return listening(createHttpServer({ maxHeaderSize: 256 * 1024 }, handler));
}

/** A service of raw bytes. `handler` is called with each connection, whose errors are of no concern. */
export function startTcpService(handler: (socket: Socket) => void): Promise<LocalService<Server>> {
  return listening(
    createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      socket.on('error', () => {});
      handler(socket);
    }),
  );
}

/** Listens on a free port of the loopback. @param port 0 for any */
export async function listening<S extends Server>(server: S, port = 0): Promise<LocalService<S>> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address() as AddressInfo;
  return {
    port: address.port,
    url: `http://127.0.0.1:${address.port}`,
    server,
    sockets,
    async close() {
      if (!server.listening) return;
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** A port of the loopback on which nobody listens now. */
export async function freePort(): Promise<number> {
  const service = await startTcpService(() => {});
  await service.close();
  return service.port;
}
