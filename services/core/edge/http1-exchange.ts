import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { renderError } from './error-reply.ts';
import type { VisitorExchange, VisitorReceiver } from './exchange.ts';
import { FieldKind } from './field-kind.ts';
import type { ActiveExchange, Http1Connection } from './http1-connection.ts';
import { forwardTrailers } from './hygiene.ts';
import { type ResponseFields, responseHeaders, withoutKind } from './response-fields.ts';
import type { ReadRequest } from './validate.ts';
import { VisitorRequest } from './visitor-request.ts';

/** Bodies up to this size are sent in one piece with their head, bytes. */
const JOINED_BYTES = 4096;

/** One HTTP/1 request and its answer: one object, and no listener that the request does not need. */
export class Http1Exchange extends VisitorRequest implements VisitorExchange, ActiveExchange {
  protected readonly connection: Http1Connection;
  protected receiver: VisitorReceiver | undefined;
  /** Nothing more is sent or reported: ended, aborted, or the visitor is gone. */
  protected over = false;
  /** The final head, or a 101, is on its way. */
  protected sent = false;
  readonly #req: IncomingMessage;
  readonly #res: ServerResponse;
  /** The answer must not have a body (RFC 9110 section 6.4.1); what the service sends is dropped. */
  #bodiless = false;
  /** Bytes still to come by Content-Length; -1 when chunked or ended by the close. */
  #remaining = -1;
  #drainWatched = false;
  #paused = false;
  #continued = false;

  constructor(
    request: ReadRequest,
    connection: Http1Connection,
    req: IncomingMessage,
    res: ServerResponse,
    upgrade: string | undefined,
  ) {
    super(request, connection.peer, req.httpVersionMinor === 0 ? 'http/1.0' : 'http/1.1', upgrade);
    this.connection = connection;
    this.#req = req;
    this.#res = res;
  }

  get isOver(): boolean {
    return this.over;
  }

  get headSent(): boolean {
    return this.sent;
  }

  get bodyIncomplete(): boolean {
    return this.hasBody && !this.#req.complete;
  }

  get awaitsBody(): boolean {
    // Before "100 Continue" it is the visitor who waits.
    const released = this.#continued || this.#req.headers.expect === undefined;
    return this.bodyIncomplete && released && !this.sent && !this.#paused && this.receiver !== undefined;
  }

  start(receiver: VisitorReceiver): void {
    this.receiver = receiver;
    if (this.over) {
      queueMicrotask(() => receiver.onAbort());
      return;
    }
    if (!this.hasBody) return;
    this.#req.on('data', (chunk: Buffer) => {
      if (!this.over) receiver.onData(chunk);
    });
    this.#req.on('end', () => {
      if (!this.over) receiver.onEnd(forwardTrailers(this.#req.rawTrailers));
    });
  }

  pause(): void {
    this.#paused = true;
    if (this.hasBody) this.#req.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.hasBody) this.#req.resume();
  }

  informational(status: number, headers: FlatHeaders): void {
    // RFC 9110 section 15.2: a server must not send a 1xx to an HTTP/1.0 client.
    if (this.over || this.sent || this.protocol === 'http/1.0') return;
    try {
      if (status === 100) {
        this.#continued = true;
        this.#res.writeContinue();
      } else this.#res.writeInformation(status, responseHeaders(headers).headers);
    } catch {
      // Interim responses are optional: one that cannot be written is not worth the final one.
    }
  }

  respond(status: number, reason: string, headers: FlatHeaders, body: Buffer | undefined, end: boolean): boolean {
    if (this.over || this.sent) return false;
    const fields = responseHeaders(headers);
    if (status >= 200 && status <= 999 && fields.valid && this.#send(status, reason, fields, body, end)) return true;
    this.fail('bad_response');
    return false;
  }

  switchProtocols(_headers: FlatHeaders, _first: Buffer | undefined): boolean {
    if (!this.over && !this.sent) this.fail('bad_response', 'the service switched protocols without being asked');
    return false;
  }

  write(chunk: Buffer): boolean {
    if (this.over || this.#bodiless || !this.sent) return true;
    if (this.#remaining >= 0) {
      // Bytes after Content-Length would be read as the start of the next response.
      if (chunk.length > this.#remaining) chunk = chunk.subarray(0, this.#remaining);
      this.#remaining -= chunk.length;
    }
    if (chunk.length === 0 || this.#res.write(chunk)) return true;
    this.#watchDrain();
    return false;
  }

  trailers(headers: FlatHeaders): void {
    if (this.over || !this.sent) return;
    if (this.#res.chunkedEncoding) {
      try {
        this.#res.addTrailers(pairs(forwardTrailers(headers) ?? []));
      } catch {
        this.abort();
        return;
      }
    }
    this.end();
  }

  end(): void {
    if (this.over || !this.sent) return;
    if (this.#remaining > 0 && !this.#bodiless) {
      this.abort();
      return;
    }
    this.#res.end();
    this.#ended();
  }

  get isBlocked(): boolean {
    return this.over ? this.#res.writableLength > 0 : this.#res.writableNeedDrain;
  }

  whenSent(callback: () => void): void {
    if (this.#res.closed) callback();
    else this.#res.once('close', callback);
  }

  drop(): void {
    this.connection.destroy();
  }

  abort(): void {
    if (this.over) return;
    this.over = true;
    this.connection.finished(this);
    // A body that ends with the connection looks complete after a FIN; only a reset tells otherwise.
    if (this.sent && this.#remaining < 0 && !this.#res.chunkedEncoding) this.connection.reset();
    else this.connection.breakOff();
  }

  fail(code: ErrorCode, detail?: string): void {
    if (this.over) return;
    if (this.sent) {
      this.abort();
      return;
    }
    const { status, headers, body } = renderError(code, this.requestId, this.accept, detail);
    this.#send(status, STATUS_CODES[status] ?? 'Error', responseHeaders(headers), body, true);
  }

  connectionClosed(): void {
    if (this.over) return;
    this.over = true;
    this.receiver?.onAbort();
  }

  visitorFault(detail: string): void {
    if (this.over) return;
    this.connection.poisoned = true;
    this.fail('bad_request', detail);
    this.receiver?.onAbort();
  }

  /** Called once the answer is handed over completely. */
  protected afterEnd(_res: ServerResponse): void {}

  #send(status: number, reason: string, fields: ResponseFields, body: Buffer | undefined, end: boolean): boolean {
    const bodiless = this.method === 'HEAD' || status === 204 || status === 304;
    const length = body === undefined ? 0 : body.length;
    try {
      this.#res.writeHead(status, reason, this.#frame(status, fields, length, end, bodiless));
    } catch {
      return false;
    }
    this.sent = true;
    this.#bodiless = bodiless;
    this.#remaining = fields.contentLength ?? (end ? length : -1);
    if (end && (bodiless || length === this.#remaining)) {
      this.#endWith(bodiless ? undefined : body);
      this.#ended();
      return true;
    }
    if (body === undefined || length === 0 || bodiless) this.#res.flushHeaders();
    else this.write(body);
    if (end) this.end();
    return true;
  }

  #endWith(body: Buffer | undefined): void {
    // node:http joins its head with a Latin-1 string into one plain write; a buffer would make it a vector of two, which
    // costs 7 % of the requests per second with a body of 1 KiB (measured). Latin-1 keeps every byte.
    if (body !== undefined && body.length <= JOINED_BYTES) this.#res.end(body.toString('latin1'), 'latin1');
    else this.#res.end(body);
  }

  /** Chooses the framing (RFC 9112 section 6) by adding to, or taking from, the service's fields. */
  #frame(status: number, fields: ResponseFields, length: number, end: boolean, bodiless: boolean): FlatHeaders {
    let headers = fields.headers;
    const { contentLength } = fields;
    // RFC 9110 section 8.6: no Content-Length in a 204.
    if (status === 204 && contentLength !== undefined) headers = withoutKind(headers, FieldKind.contentLength);
    const chunked = contentLength === undefined && !end && !bodiless && this.protocol === 'http/1.1';
    // node:http refuses a Trailer field where no trailers can follow.
    if (fields.hasTrailer && !chunked) headers = withoutKind(headers, FieldKind.trailer);
    if (contentLength === undefined && end && !bodiless) headers.push('Content-Length', String(length));
    else if (fields.hasDisposition && contentLength !== undefined) {
      // Once it has seen Content-Length, node:http reads a Content-Disposition as UTF-8 and so spoils file names. The order
      // of fields with different names means nothing (RFC 9110 section 5.3).
      headers = withoutKind(headers, FieldKind.contentLength);
      if (status !== 204) headers.push('Content-Length', String(contentLength));
    }
    if (this.connection.ending) headers.push('Connection', 'close');
    return headers;
  }

  #watchDrain(): void {
    if (this.#drainWatched) return;
    this.#drainWatched = true;
    this.#res.on('drain', () => {
      if (!this.over) this.receiver?.onDrain();
    });
  }

  #ended(): void {
    this.over = true;
    this.connection.finished(this);
    if (this.bodyIncomplete) this.connection.drain(this.#req);
    const { receiver } = this;
    if (receiver?.onFinish !== undefined) this.#res.once('close', () => receiver.onFinish?.());
    this.afterEnd(this.#res);
  }
}

function pairs(headers: FlatHeaders): [string, string][] {
  const list: [string, string][] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) list.push([headers[i] ?? '', headers[i + 1] ?? '']);
  return list;
}
