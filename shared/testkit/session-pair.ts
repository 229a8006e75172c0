import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { ErrorCode } from '../errors/codes.ts';
import type { RequestHead, ResponseHead } from '../protocol/heads.ts';
import { Session, type SessionHandler, type SessionOptions } from '../protocol/session.ts';
import type { Stream, StreamSink } from '../protocol/stream-types.ts';

/** Two ends of one loopback TCP connection. */
export async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer({ noDelay: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const client = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true });
  const [far] = (await accepted) as [Socket];
  server.close();
  return [client, far];
}

/** Writes down what happens on a stream. */
export class RecordingSink implements StreamSink {
  readonly heads: ResponseHead[] = [];
  readonly chunks: Buffer[] = [];
  trailers: string[] | undefined;
  ended = false;
  closed: { code: ErrorCode | undefined; message: string } | undefined;
  stream: Stream | undefined;
  /** Give credit back at once. */
  autoConsume = true;
  bytes = 0;
  writable = 0;
  #waiters: (() => void)[] = [];

  get body(): Buffer {
    return Buffer.concat(this.chunks);
  }

  onHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void {
    this.heads.push(head);
    if (body !== undefined || end) this.onData(body ?? Buffer.alloc(0), end);
    this.#wake();
  }

  onData(chunk: Buffer, end: boolean): void {
    this.bytes += chunk.length;
    if (chunk.length > 0) this.chunks.push(chunk);
    if (end) this.ended = true;
    if (this.autoConsume) this.stream?.consumed(chunk.length);
    this.#wake();
  }

  onTrailers(headers: string[]): void {
    this.trailers = headers;
    this.ended = true;
    this.#wake();
  }

  onWritable(): void {
    this.writable += 1;
    this.#wake();
  }

  onClose(code: ErrorCode | undefined, message: string): void {
    this.closed = { code, message };
    this.#wake();
  }

  /** Resolves once the condition holds; looked at after each event of the stream. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  #wake(): void {
    for (const waiter of this.#waiters.splice(0)) waiter();
  }
}

export interface AcceptedStream {
  readonly stream: Stream;
  readonly head: RequestHead;
  readonly sink: RecordingSink;
}

export interface SessionPair {
  readonly opener: Session;
  readonly acceptor: Session;
  readonly sockets: readonly [Socket, Socket];
  readonly accepted: AcceptedStream[];
  readonly openerEvents: string[];
  readonly acceptorEvents: string[];
  /** Opens a stream with a sink of its own. */
  open(head?: Partial<RequestHead>, body?: Buffer, end?: boolean): { stream: Stream; sink: RecordingSink };
  /** Resolves with the n-th accepted stream. */
  acceptedAt(index: number): Promise<AcceptedStream>;
  close(): void;
}

/** Two authenticated sessions over loopback TCP. */
export async function sessionPair(
  openerOptions: Partial<SessionOptions> = {},
  acceptorOptions: Partial<SessionOptions> = {},
): Promise<SessionPair> {
  const sockets = await socketPair();
  const accepted: AcceptedStream[] = [];
  const waiters: (() => void)[] = [];
  const openerEvents: string[] = [];
  const acceptorEvents: string[] = [];
  const opener = new Session(sockets[0], eventLog(openerEvents), { role: 'opener', ...openerOptions });
  const acceptor = new Session(
    sockets[1],
    {
      ...eventLog(acceptorEvents),
      onStream: (stream, head, body, end) => {
        const sink = new RecordingSink();
        sink.stream = stream;
        if (body !== undefined || end) sink.onData(body ?? Buffer.alloc(0), end);
        accepted.push({ stream, head, sink });
        for (const waiter of waiters.splice(0)) waiter();
        return sink;
      },
    },
    { role: 'acceptor', ...acceptorOptions },
  );
  opener.authenticated();
  acceptor.authenticated();
  return {
    opener,
    acceptor,
    sockets,
    accepted,
    openerEvents,
    acceptorEvents,
    open(head = {}, body, end = true) {
      const sink = new RecordingSink();
      const full = { method: 'GET', target: '/', tunnel: 'demo', meta: '', headers: [], ...head };
      const stream = opener.open(full, body, end, sink);
      sink.stream = stream;
      return { stream, sink };
    },
    async acceptedAt(index) {
      for (;;) {
        const found = accepted[index];
        if (found !== undefined) return found;
        await new Promise<void>((resolve) => waiters.push(resolve));
      }
    },
    close() {
      opener.close(undefined, 'test over');
      acceptor.close(undefined, 'test over');
      for (const socket of sockets) socket.destroy();
    },
  };
}

function eventLog(events: string[]): SessionHandler {
  return {
    onControl: (type) => events.push(`control ${type}`),
    onStream: () => {
      throw new Error('not an acceptor');
    },
    onGoAway: (message) => events.push(`go-away ${message.reason} ${message.last_stream_id}`),
    onClosed: (code, message) => events.push(`closed ${code ?? 'cleanly'}: ${message}`),
  };
}
