import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { resetSocket } from '../net/reset-socket.ts';

/** What happens to the bytes between two parts. */
type Fault =
  | { readonly kind: 'none' }
  /** Nothing passes and nobody is told, as when a switch is unplugged. What was sent arrives after `heal`. */
  | { readonly kind: 'silence' }
  /** Connections are reset and new ones refused. */
  | { readonly kind: 'refusal' }
  /** Every piece arrives so much later, milliseconds, in each direction. */
  | { readonly kind: 'delay'; readonly by: number };

/** A TCP proxy between two parts of a test that can break the way between them. */
export interface FaultProxy {
  readonly port: number;
  /** Connections that it carries now. */
  readonly connections: number;
  silence(): void;
  refuse(): void;
  /** @param by milliseconds in each direction */
  delay(by: number): void;
  heal(): void;
  close(): Promise<void>;
}

/** Bytes held in one direction before the sender is not read any more. */
const MAX_HELD = 4 * 1024 * 1024;

/** @param target port of the loopback to pass connections on to, who may come and go */
export async function startFaultProxy(target: number): Promise<FaultProxy> {
  const pairs = new Set<Pair>();
  let fault: Fault = { kind: 'none' };
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (visitor) => {
    if (fault.kind === 'refusal') {
      resetSocket(visitor.on('error', () => {}));
      return;
    }
    const pair = new Pair(visitor, target, fault, () => pairs.delete(pair));
    pairs.add(pair);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const apply = (next: Fault): void => {
    fault = next;
    for (const pair of [...pairs]) pair.apply(next);
  };
  return {
    port: (server.address() as AddressInfo).port,
    get connections() {
      return pairs.size;
    },
    silence: () => apply({ kind: 'silence' }),
    refuse: () => apply({ kind: 'refusal' }),
    delay: (by) => apply({ kind: 'delay', by }),
    heal: () => apply({ kind: 'none' }),
    async close() {
      const closed = once(server, 'close');
      server.close();
      for (const pair of [...pairs]) pair.reset();
      await closed;
    },
  };
}

/** One connection through the proxy: a socket to each side. */
class Pair {
  readonly #sockets: readonly [Socket, Socket];
  readonly #ways: readonly [Way, Way];
  readonly #onClosed: () => void;
  #closed = false;

  constructor(visitor: Socket, target: number, fault: Fault, onClosed: () => void) {
    const far = connect({ port: target, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    this.#sockets = [visitor, far];
    this.#onClosed = onClosed;
    this.#ways = [new Way(visitor, far), new Way(far, visitor)];
    for (const socket of this.#sockets) {
      socket.on('error', () => {});
      // An end that could not be told because nothing passes is told when it does.
      socket.on('close', (hadError) => {
        if (hadError) for (const way of this.#ways) way.enqueue('reset');
        if (this.#sockets.every((each) => each.destroyed)) this.#end();
      });
    }
    this.apply(fault);
  }

  apply(fault: Fault): void {
    if (fault.kind === 'refusal') this.reset();
    else for (const way of this.#ways) way.apply(fault);
  }

  reset(): void {
    for (const socket of this.#sockets) resetSocket(socket);
    this.#end();
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const way of this.#ways) way.stop();
    this.#onClosed();
  }
}

type Piece = Buffer | 'end' | 'reset';

/** One direction of a connection. */
class Way {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #held: { readonly piece: Piece; readonly at: number }[] = [];
  #bytes = 0;
  #fault: Fault = { kind: 'none' };
  #timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket) {
    this.#from = from;
    this.#to = to;
    from.on('data', (chunk: Buffer) => this.enqueue(chunk));
    from.on('end', () => this.enqueue('end'));
    to.on('drain', () => this.#resume());
  }

  apply(fault: Fault): void {
    this.#fault = fault;
    this.#flush();
  }

  enqueue(piece: Piece): void {
    this.#held.push({ piece, at: performance.now() });
    if (piece instanceof Buffer) this.#bytes += piece.length;
    this.#flush();
    if (this.#bytes > MAX_HELD) this.#from.pause();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    if (this.#fault.kind === 'silence') return;
    const by = this.#fault.kind === 'delay' ? this.#fault.by : 0;
    const now = performance.now();
    for (let next = this.#held[0]; next !== undefined; next = this.#held[0]) {
      const left = next.at + by - now;
      if (left > 0) {
        this.#timer = setTimeout(() => this.#flush(), left);
        this.#timer.unref();
        return;
      }
      this.#held.shift();
      this.#pass(next.piece);
    }
    this.#resume();
  }

  #pass(piece: Piece): void {
    if (piece === 'reset') this.#to.destroyed || resetSocket(this.#to);
    else if (piece === 'end') this.#to.end();
    else {
      this.#bytes -= piece.length;
      if (this.#to.writable && !this.#to.write(piece)) this.#from.pause();
    }
  }

  #resume(): void {
    if (this.#bytes <= MAX_HELD && !this.#to.writableNeedDrain) this.#from.resume();
  }
}
