import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders, RequestHead, ResponseHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink } from '../../../shared/protocol/stream-types.ts';
import type { Forwarder } from './forwarder.ts';

/** The core's end of a stream, in memory: what the forwarder sends is recorded, and `until` waits for it. */
export class TestStream implements Stream {
  readonly id = 1000;
  isOpen = true;
  sentEnd = false;
  readonly heads: ResponseHead[] = [];
  readonly chunks: Buffer[] = [];
  bodyBytes = 0;
  trailers: FlatHeaders | undefined;
  /** `undefined` until the stream is over, then the code of the reset or 'ok'. */
  closed: ErrorCode | 'ok' | undefined;
  message = '';
  credit = 0;
  finished = false;
  /** Calls of sendHead, write, sendTrailers and end: about what frames there would be. */
  calls = 0;
  /** Bytes that are taken before `write` returns false. */
  window = Number.POSITIVE_INFINITY;
  #sink: StreamSink | undefined;
  #peerEnded: boolean;
  #waiters: { test: () => boolean; resolve: () => void }[] = [];

  constructor(peerEnded: boolean) {
    this.#peerEnded = peerEnded;
  }

  get head(): ResponseHead {
    const last = this.heads.at(-1);
    if (last === undefined) throw new Error(`no head: ${this.closed} ${this.message}`);
    return last;
  }

  get body(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get text(): string {
    return this.body.toString('latin1');
  }

  attach(sink: StreamSink): void {
    this.#sink = sink;
  }

  // What the core does

  data(bytes: Buffer | string, end = false): void {
    if (end) this.#peerEnded = true;
    this.#sink?.onData(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, end);
    this.#maybeClose();
  }

  endWith(trailers: FlatHeaders): void {
    this.#peerEnded = true;
    this.#sink?.onTrailers(trailers);
    this.#maybeClose();
  }

  abort(code: ErrorCode = 'canceled'): void {
    this.#close(code, 'the visitor went away');
  }

  open(window = Number.POSITIVE_INFINITY): void {
    this.window = window;
    this.#sink?.onWritable();
  }

  /** Resolves when `test` holds; looked at after each thing that happens to the stream. */
  async until(test: () => boolean): Promise<void> {
    if (test()) return;
    await new Promise<void>((resolve) => this.#waiters.push({ test, resolve }));
  }

  async over(): Promise<this> {
    await this.until(() => this.closed !== undefined);
    return this;
  }

  // What the forwarder does

  sendHead(head: ResponseHead, body: Buffer | undefined, end: boolean): boolean {
    if (!this.isOpen) return true;
    this.heads.push(head);
    return this.#send(body, end);
  }

  write(chunk: Buffer, end: boolean): boolean {
    return this.isOpen ? this.#send(chunk, end) : true;
  }

  sendTrailers(headers: FlatHeaders): void {
    this.trailers = headers;
    this.#send(undefined, true);
  }

  end(): void {
    if (this.isOpen) this.#send(undefined, true);
  }

  consumed(bytes: number): void {
    this.credit += bytes;
    this.#changed();
  }

  finish(): void {
    this.finished = true;
    this.#close(undefined, '');
  }

  reset(code: ErrorCode, message = ''): void {
    this.#close(code, message);
  }

  #send(chunk: Buffer | undefined, end: boolean): boolean {
    if (this.sentEnd) throw new Error('sent after the end');
    this.calls++;
    if (chunk !== undefined && chunk.length > 0) this.chunks.push(chunk);
    this.bodyBytes += chunk?.length ?? 0;
    this.window -= chunk?.length ?? 0;
    if (end) this.sentEnd = true;
    const more = this.window > 0;
    this.#maybeClose();
    this.#changed();
    return more;
  }

  #maybeClose(): void {
    if (this.sentEnd && this.#peerEnded) this.#close(undefined, '');
  }

  #close(code: ErrorCode | undefined, message: string): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.closed = code ?? 'ok';
    this.message = message;
    this.#sink?.onClose(code, message);
    this.#changed();
  }

  #changed(): void {
    const waiters = this.#waiters;
    this.#waiters = waiters.filter(({ test }) => !test());
    for (const waiter of waiters) if (!this.#waiters.includes(waiter)) waiter.resolve();
  }
}

export interface TestRequest {
  readonly method?: string;
  readonly target?: string;
  readonly tunnel?: string;
  readonly headers?: FlatHeaders;
  readonly body?: Buffer | string;
  readonly end?: boolean;
  readonly window?: number;
}

/** Sends a request through the forwarder as the session layer would. */
export function send(forwarder: Forwarder, request: TestRequest = {}): TestStream {
  const end = request.end ?? true;
  const stream = new TestStream(end);
  if (request.window !== undefined) stream.window = request.window;
  const head: RequestHead = {
    method: request.method ?? 'GET',
    target: request.target ?? '/',
    tunnel: request.tunnel ?? 'web',
    meta: '',
    headers: request.headers ?? ['Host', 'web.example.org'],
  };
  const body = typeof request.body === 'string' ? Buffer.from(request.body, 'latin1') : request.body;
  stream.attach(forwarder.accept(stream, head, body, end));
  return stream;
}

/** Listens on a free port of both loopback addresses' name and gives the port. */
export async function listen(server: Pick<Server, 'listen' | 'address'> & NodeJS.EventEmitter): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

export interface RawService {
  readonly url: string;
  /** Everything received, by connection. */
  readonly received: string[];
  readonly sockets: Socket[];
  close(): void;
}

/** A service of raw bytes: `answer` is called with each piece received and the number of the connection, from 0. */
export async function rawService(
  answer: (socket: Socket, text: string, connection: number) => void,
): Promise<RawService> {
  const received: string[] = [];
  const sockets: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const number = sockets.push(socket) - 1;
    received.push('');
    socket.on('error', () => {});
    socket.on('end', () => {
      if (!socket.writableEnded && socket.listenerCount('end') === 1) socket.end();
    });
    socket.on('data', (chunk) => {
      const text = chunk.toString('latin1');
      received[number] += text;
      answer(socket, text, number);
    });
  });
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    received,
    sockets,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** A self-signed certificate for localhost, as PEM. */
export function selfSigned(): { key: string; cert: string } {
  const request =
    'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -keyout - -out -';
  const names = ['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  const pem = execFileSync('openssl', [...request.split(' '), ...names], { encoding: 'latin1', stdio: 'pipe' });
  const at = pem.indexOf('-----BEGIN CERTIFICATE');
  return { key: pem.slice(0, at), cert: pem.slice(at) };
}
