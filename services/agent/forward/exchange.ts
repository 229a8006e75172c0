import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders, RequestHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink } from '../../../shared/protocol/stream-types.ts';

/** RFC 9110 section 9.2.2: what may be sent again when nobody knows whether it was processed. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE']);

/** What is known of a request when it is over. */
export interface RequestInfo {
  readonly tunnel: string;
  readonly method: string;
  readonly target: string;
  /** Status of the final head (or 101) that was passed on; 0 when there was none. */
  readonly status: number;
  /** Why it failed; undefined when the answer was complete. */
  readonly code: ErrorCode | undefined;
  /** Milliseconds from `accept` to the end. */
  readonly ms: number;
  /** Request body bytes that came from the tunnel. */
  readonly bytesIn: number;
  /** Response body bytes that went to the tunnel. */
  readonly bytesOut: number;
}

/** The requests in progress, swept together: no timer of its own for each of them. */
export class ActiveRequests {
  readonly requestTimeoutMs: number;
  readonly onRequest: ((info: RequestInfo) => void) | undefined;
  readonly #requests = new Set<Exchange>();

  constructor(requestTimeoutMs: number, onRequest: ((info: RequestInfo) => void) | undefined) {
    this.requestTimeoutMs = requestTimeoutMs;
    this.onRequest = onRequest;
  }

  get size(): number {
    return this.#requests.size;
  }

  add(exchange: Exchange): void {
    this.#requests.add(exchange);
  }

  delete(exchange: Exchange): void {
    this.#requests.delete(exchange);
  }

  sweep(now: number): void {
    const before = now - this.requestTimeoutMs;
    for (const exchange of this.#requests) exchange.expire(before);
  }

  failAll(code: ErrorCode, message: string): void {
    for (const exchange of this.#requests) exchange.fail(code, message);
  }
}

/** One request and its answer: what is the same for every protocol that the service may speak. */
export abstract class Exchange implements StreamSink {
  readonly head: RequestHead;
  protected readonly stream: Stream;
  protected readonly active: ActiveRequests;
  protected status = 0;
  protected bytesIn = 0;
  protected bytesOut = 0;
  /** When the request last made progress; the time for an answer counts from here. */
  protected progressAt: number;
  /** Nothing is sent or taken any more. */
  protected settled = false;
  /** The final head has come: from now on the answer may take any time (server-sent events, long downloads). */
  protected answered = false;
  readonly #startedAt: number;

  constructor(active: ActiveRequests, stream: Stream, head: RequestHead) {
    this.active = active;
    this.stream = stream;
    this.head = head;
    this.#startedAt = performance.now();
    this.progressAt = this.#startedAt;
    active.add(this);
  }

  /** Gives up whatever connects this request with the service, at once. Called once. */
  protected abstract abort(): void;
  abstract onData(chunk: Buffer, end: boolean): void;
  abstract onTrailers(headers: FlatHeaders): void;
  abstract onWritable(): void;

  /** Only an opener receives heads. */
  onHead(): void {}

  onClose(code: ErrorCode | undefined, _message: string): void {
    if (this.settled) return;
    this.settle(code);
    this.abort();
  }

  /** Resets the stream, which no answer can complete any more. */
  fail(code: ErrorCode, message: string): void {
    if (this.settled) return;
    this.settle(code);
    this.abort();
    this.stream.reset(code, message);
  }

  /** As `fail`, but never within `accept`: the session does not hold the sink before that returns. */
  failLater(code: ErrorCode, message: string): void {
    queueMicrotask(() => this.fail(code, message));
  }

  expire(before: number): void {
    if (this.progressAt > before || this.answered) return;
    this.fail('timeout', `no answer from the service within ${this.active.requestTimeoutMs} ms`);
  }

  protected get idempotent(): boolean {
    return IDEMPOTENT.has(this.head.method);
  }

  /** Asks the pool for a connection; a refusal fails the request. */
  protected join<User>(pool: { acquire(user: User): void }, user: User): void {
    try {
      pool.acquire(user);
    } catch (error) {
      if (!(error instanceof CulvertError)) throw error;
      this.failLater(error.code, error.message);
    }
  }

  protected progress(): void {
    this.progressAt = performance.now();
  }

  protected settle(code: ErrorCode | undefined): void {
    this.settled = true;
    this.active.delete(this);
    const { onRequest } = this.active;
    if (onRequest === undefined) return;
    const { tunnel, method, target } = this.head;
    onRequest({
      tunnel,
      method,
      target,
      status: this.status,
      code,
      ms: performance.now() - this.#startedAt,
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
    });
  }
}
