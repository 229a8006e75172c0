import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { VisitorExchange, VisitorReceiver } from './exchange.ts';
import { createPublicListener, type PublicListener, type PublicListenerOptions } from './listener.ts';

/** Test tools of the edge: a listener on port 0 and a visitor that writes raw bytes. */
export const BASE_DOMAIN = 'culvert.test';

export async function startListener(
  t: TestContext,
  request: (exchange: VisitorExchange) => void,
  options: Partial<PublicListenerOptions> = {},
): Promise<PublicListener> {
  const listener = createPublicListener({
    handler: { request },
    baseDomain: BASE_DOMAIN,
    host: '127.0.0.1',
    port: 0,
    ...options,
  });
  await listener.listen();
  t.after(() => listener.close(0));
  return listener;
}

/** A visitor made of bytes: sends what it is told and collects what comes. */
export class RawVisitor {
  readonly socket: Socket;
  received = '';
  ended = false;
  error: Error | undefined;
  readonly closed: Promise<void>;
  #wake: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1');
      this.#notify();
    });
    socket.on('end', () => {
      this.ended = true;
      this.#notify();
    });
    socket.on('error', (error) => {
      this.error = error;
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.ended = true;
        this.#notify();
        resolve();
      });
    });
  }

  send(text: string): void {
    this.socket.write(text, 'latin1');
  }

  /** Resolves when `wanted` has been received; rejects when the connection ends before. */
  async until(wanted: string | RegExp): Promise<string> {
    while (!matches(this.received, wanted)) {
      if (this.ended) throw new Error(`the connection ended before ${wanted}; received: ${this.received}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
    return this.received;
  }

  /** All that is received until the listener's FIN. */
  async untilEnd(): Promise<string> {
    while (!this.ended) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.received;
  }

  #notify(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

export function visit(t: TestContext, listener: PublicListener, text = '', allowHalfOpen = true): RawVisitor {
  const socket = connect({ port: listener.address.port, host: '127.0.0.1', allowHalfOpen });
  const visitor = new RawVisitor(socket);
  t.after(() => socket.destroy());
  if (text !== '') visitor.send(text);
  return visitor;
}

/** Resolves when the listener has noticed that everybody left. */
export async function noVisitors(listener: PublicListener): Promise<void> {
  while (listener.visitors > 0) await new Promise((resolve) => setImmediate(resolve));
}

/** A GET that keeps the connection. `fields`: whole lines, each with its CRLF. */
export function get(path = '/', fields = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: api.${BASE_DOMAIN}\r\n${fields}\r\n`;
}

/** Collects what an exchange reports, and lets a test wait for it. */
export class Recorder implements VisitorReceiver {
  body = '';
  trailers: FlatHeaders | undefined;
  drains = 0;
  aborts = 0;
  readonly ended: Promise<void>;
  readonly aborted: Promise<void>;
  readonly finished: Promise<void>;
  readonly #end = Promise.withResolvers<void>();
  readonly #abort = Promise.withResolvers<void>();
  readonly #finish = Promise.withResolvers<void>();
  #onData: ((chunk: Buffer) => void) | undefined;

  constructor(onData?: (chunk: Buffer) => void) {
    this.#onData = onData;
    this.ended = this.#end.promise;
    this.aborted = this.#abort.promise;
    this.finished = this.#finish.promise;
  }

  onData(chunk: Buffer): void {
    this.body += chunk.toString('latin1');
    this.#onData?.(chunk);
  }

  onEnd(trailers: FlatHeaders | undefined): void {
    this.trailers = trailers;
    this.#end.resolve();
  }

  onDrain(): void {
    this.drains += 1;
  }

  onAbort(): void {
    this.aborts += 1;
    this.#abort.resolve();
  }

  onFinish(): void {
    this.#finish.resolve();
  }
}

export function field(headers: FlatHeaders, name: string): string[] {
  return headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase() === name.toLowerCase());
}

export function answer(exchange: VisitorExchange, text: string): void {
  exchange.respond(200, 'OK', ['Content-Type', 'text/plain'], Buffer.from(text, 'latin1'), true);
}

/** A certificate for `localhost` by an authority of its own, `ca`. */
export async function certificate(): Promise<{ cert: string; key: string; ca: string }> {
  const { issueAuthority, issueServer } = await import('../../../shared/tls/issue.ts');
  const authority = await issueAuthority(Date.now());
  const { cert, key } = await issueServer(authority, ['localhost', '127.0.0.1'], Date.now());
  return { cert, key, ca: authority.cert };
}

function matches(text: string, wanted: string | RegExp): boolean {
  return typeof wanted === 'string' ? text.includes(wanted) : wanted.test(text);
}
