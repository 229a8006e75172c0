import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders, RequestHead, ResponseHead } from '../../../shared/protocol/heads.ts';
import type { Stream } from '../../../shared/protocol/stream-types.ts';
import { BodyWriter } from './body-writer.ts';
import type { Connection } from './connection.ts';
import { type ActiveRequests, Exchange } from './exchange.ts';
import type { ResponseHandler } from './http1-parser.ts';
import type { Pool, PoolUser, Reuse } from './pool.ts';
import { RawTunnel } from './raw-tunnel.ts';
import { planRequest, type RequestPlan } from './request-head.ts';

/** One request over HTTP/1.1 to the service. */
export class Http1Exchange extends Exchange implements PoolUser, ResponseHandler {
  reuse: Reuse;
  readonly #pool: Pool;
  readonly #plan: RequestPlan;
  readonly #firstBody: Buffer | undefined;
  readonly #firstEnd: boolean;
  #firstCredited = false;
  /** More of the body than `#firstBody` was written, so there is nothing to write it again from. */
  #beyondFirst = false;
  #connection: Connection | undefined;
  #writer: BodyWriter | undefined;
  #requestEnded = false;
  /** Body that came before there was a connection, or raw bytes before the 101. Their credit is not given back: bounded. */
  #held: Buffer[] = [];
  #heldEnd = false;
  #heldTrailers: FlatHeaders | undefined;
  #raw: RawTunnel | undefined;
  #sawAnswer = false;
  #paused = false;
  /** The end of the answer was given to the stream. */
  #complete = false;

  constructor(
    active: ActiveRequests,
    pool: Pool,
    host: string | undefined,
    stream: Stream,
    head: RequestHead,
    body: Buffer | undefined,
    end: boolean,
  ) {
    super(active, stream, head);
    const bodyBytes = body === undefined ? 0 : body.length;
    this.#pool = pool;
    this.#plan = planRequest(head, pool.target, host, bodyBytes, end);
    this.#firstBody = body;
    this.#firstEnd = end;
    this.bytesIn = bodyBytes;
    this.reuse = this.idempotent ? 'any' : 'recent';
    const { refused, length, upgrade } = this.#plan;
    if (head.method === 'CONNECT') {
      this.failLater('method_not_allowed', 'CONNECT cannot be forwarded to a service');
    } else if (refused !== undefined) {
      this.failLater('bad_request', refused);
    } else if (!upgrade && length >= 0 && (bodyBytes > length || (end && bodyBytes < length))) {
      this.failLater('bad_request', 'the body has another size than Content-Length says');
    } else {
      if (upgrade) {
        if (bodyBytes > 0 && body !== undefined) this.#held.push(body);
        this.#heldEnd = end;
      }
      this.join(this.#pool, this);
    }
  }

  // From the pool

  onConnection(connection: Connection): void {
    this.#connection = connection;
    connection.parser.reset(this, this.head.method === 'HEAD');
    this.progress();
    const { text, length, chunked, upgrade } = this.#plan;
    if (upgrade || (this.#firstEnd && this.#firstBody === undefined)) {
      connection.socket.write(text, 'latin1');
      this.#requestEnded = true;
      return;
    }
    const writer = new BodyWriter(connection.socket, this.stream, length, chunked);
    this.#writer = writer;
    writer.start(text, this.#firstBody, this.#firstEnd, this.#firstCredited);
    this.#firstCredited = writer.owed === 0;
    this.#requestEnded = writer.ended;
    this.#releaseHeld();
  }

  onConnectFailed(code: ErrorCode, message: string): void {
    this.fail(code, message);
  }

  // From the tunnel

  onData(chunk: Buffer, end: boolean): void {
    if (this.settled) return;
    this.bytesIn += chunk.length;
    if (this.#raw !== undefined) this.#raw.toSocket(chunk, end);
    else if (this.#writer !== undefined) this.#write(chunk, end);
    else {
      if (chunk.length > 0) this.#held.push(chunk);
      if (end) this.#heldEnd = true;
    }
  }

  onTrailers(headers: FlatHeaders): void {
    if (this.settled) return;
    if (this.#raw !== undefined) this.#raw.toSocket(Buffer.alloc(0), true);
    else if (this.#writer !== undefined) this.#writeTrailers(this.#writer, headers);
    else {
      this.#heldTrailers = headers;
      this.#heldEnd = true;
    }
  }

  onWritable(): void {
    this.#paused = false;
    this.#connection?.socket.resume();
  }

  override onClose(code: ErrorCode | undefined, message: string): void {
    // The stream may be over as soon as the end of the answer is given to it; the connection is then settled by #finish.
    if (this.settled || (code === undefined && this.#complete)) return;
    if (code === undefined && this.#raw !== undefined) {
      this.settle(undefined);
      this.#raw.linger();
      return;
    }
    super.onClose(code, message);
  }

  // From the socket

  onSocketData(buffer: Buffer, length: number): void {
    const { parser } = this.#connection ?? {};
    if (this.settled || parser === undefined) return;
    this.#sawAnswer = true;
    parser.execute(buffer, length);
    if (this.settled) return;
    const { error } = parser;
    if (error !== undefined) this.fail('bad_response', `the service's answer is not valid HTTP: ${error}`);
    else if (parser.done) this.#finish();
  }

  onSocketEnd(): void {
    if (this.settled) return;
    if (this.#raw !== undefined) this.#raw.socketEnded();
    else if (this.#connection?.parser.finish() === true) this.#finish();
    else this.#lost('the service closed the connection');
  }

  onSocketDrain(): void {
    if (this.settled) return;
    this.progress();
    this.#raw?.drained();
    this.#writer?.drained();
    this.#firstCredited = true;
  }

  onSocketClose(reason: string): void {
    if (this.settled || this.#raw?.cleanlyClosed === true) return;
    this.#lost(reason);
  }

  // From the parser

  onResponseHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void {
    if (this.settled) return;
    if (head.status < 200 && head.status !== 101) {
      this.progress();
      this.stream.sendHead(head, undefined, false);
      return;
    }
    if (head.status === 101 && !this.#plan.upgrade) {
      this.fail('bad_response', 'the service switched protocols without being asked');
      return;
    }
    this.answered = true;
    this.status = head.status;
    if (end) this.#complete = true;
    if (body !== undefined) this.bytesOut += body.length;
    const more = this.stream.sendHead(head, body === undefined ? undefined : this.#keep(body), end);
    if (!more && !end) this.#pause();
    if (head.status === 101) this.#startRaw();
  }

  onResponseData(chunk: Buffer, end: boolean): void {
    if (this.settled) return;
    this.bytesOut += chunk.length;
    if (this.#raw !== undefined) {
      this.#raw.toStream(this.#keep(chunk));
      return;
    }
    if (end) this.#complete = true;
    if (!end) {
      if (!this.stream.write(this.#keep(chunk), false)) this.#pause();
    } else if (chunk.length > 0) {
      this.stream.write(this.#keep(chunk), true);
    } else {
      this.stream.end();
    }
  }

  onResponseTrailers(headers: FlatHeaders): void {
    if (this.settled) return;
    this.#complete = true;
    this.stream.sendTrailers(headers);
  }

  protected override abort(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    this.#held = [];
    if (connection === undefined) this.#pool.cancel(this);
    else this.#pool.discard(connection);
  }

  #write(chunk: Buffer, end: boolean): void {
    const writer = this.#writer;
    if (writer === undefined) return;
    this.progress();
    this.#beyondFirst = true;
    if (!writer.write(chunk, end)) this.fail('bad_request', 'the body has another size than Content-Length says');
    else this.#requestEnded = writer.ended;
  }

  #writeTrailers(writer: BodyWriter, headers: FlatHeaders): void {
    this.progress();
    this.#beyondFirst = true;
    if (!writer.trailers(headers)) this.fail('bad_request', 'the body is shorter than Content-Length says');
    else this.#requestEnded = true;
  }

  #releaseHeld(): void {
    const held = this.#held;
    const writer = this.#writer;
    if (writer === undefined) return;
    this.#held = [];
    for (const chunk of held) if (!this.settled) this.#write(chunk, false);
    if (this.settled || !this.#heldEnd) return;
    this.#heldEnd = false;
    if (this.#heldTrailers !== undefined) this.#writeTrailers(writer, this.#heldTrailers);
    else this.#write(Buffer.alloc(0), true);
  }

  #startRaw(): void {
    const connection = this.#connection;
    if (this.settled || connection === undefined) return;
    const raw = new RawTunnel(connection.socket, this.stream);
    this.#raw = raw;
    for (const chunk of this.#held) raw.toSocket(chunk, false);
    this.#held = [];
    if (this.#heldEnd) raw.toSocket(Buffer.alloc(0), true);
  }

  /** The answer is complete: the connection goes back when the request is over as well and neither side wants it closed. */
  #finish(): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    const { parser, socket } = connection;
    const reusable = parser.reusable && this.#requestEnded && socket.writableLength === 0;
    // An upgrade that was not granted leaves the visitor's half open as well.
    if (!this.#requestEnded || (this.#plan.upgrade && !this.#heldEnd)) this.stream.finish();
    this.#connection = undefined;
    this.settle(undefined);
    if (!reusable) {
      this.#pool.discard(connection);
      return;
    }
    if (this.#paused) socket.resume();
    this.#pool.release(connection, parser.keepAliveSeconds);
  }

  #lost(reason: string): void {
    const connection = this.#connection;
    // A second attempt is on a fresh connection, so there is no third.
    const again = connection?.reused === true && !this.#sawAnswer && !this.#beyondFirst && this.idempotent;
    if (!again) {
      this.fail('connection_closed', `the service closed the connection before its answer was complete: ${reason}`);
      return;
    }
    // The service closed an idle connection while the request was on its way.
    this.reuse = 'fresh';
    this.#connection = undefined;
    this.#writer = undefined;
    this.#requestEnded = false;
    this.#pool.discard(connection);
    this.join(this.#pool, this);
  }

  /** Bytes that outlive the read: plain sockets read into a buffer that all share. */
  #keep(slice: Buffer): Buffer {
    return this.#connection?.sharesBuffer === true ? Buffer.from(slice) : slice;
  }

  #pause(): void {
    this.#paused = true;
    this.#connection?.socket.pause();
  }
}
