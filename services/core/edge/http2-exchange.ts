import { constants, type OutgoingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { renderError } from './error-reply.ts';
import type { VisitorExchange, VisitorReceiver } from './exchange.ts';
import { FieldKind } from './field-kind.ts';
import { forwardTrailers } from './hygiene.ts';
import { type ResponseFields, responseHeaders, withoutKind } from './response-fields.ts';
import type { ReadRequest } from './validate.ts';
import type { VisitorPeer } from './visitor-connection.ts';
import { VisitorRequest } from './visitor-request.ts';

/** node:http2 joins fields by NUL on their way to nghttp2, so what HTTP forbids must not get there. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** One HTTP/2 stream, without the compatibility API and its two objects for each request. */
export class Http2Exchange extends VisitorRequest implements VisitorExchange {
  readonly #stream: ServerHttp2Stream;
  #receiver: VisitorReceiver | undefined;
  #closesAfterTrailers = false;
  #trailers: FlatHeaders | undefined;
  #requestTrailers: FlatHeaders | undefined;
  #requestEnded: boolean;
  #over = false;
  #sent = false;
  #ended = false;
  #bodiless = false;
  #remaining = -1;
  #written = 0;
  #progress = 0;
  #progressAt = 0;

  /** @param onClosed called once when the stream is gone */
  constructor(
    request: ReadRequest,
    peer: VisitorPeer,
    stream: ServerHttp2Stream,
    onClosed: (exchange: Http2Exchange) => void,
  ) {
    super(request, peer, 'h2', undefined);
    this.#stream = stream;
    this.#requestEnded = stream.endAfterHeaders;
    // RST_STREAM with a code arrives as 'error' and then 'close'.
    stream.on('error', () => {});
    stream.on('close', () => {
      onClosed(this);
      this.#closed();
    });
  }

  get headSent(): boolean {
    return this.#sent;
  }

  start(receiver: VisitorReceiver): void {
    this.#receiver = receiver;
    if (this.#over) {
      queueMicrotask(() => receiver.onAbort());
      return;
    }
    if (this.#requestEnded) return;
    this.#stream.on('trailers', (_headers: unknown, _flags: unknown, raw: string[]) => {
      this.#requestTrailers = forwardTrailers(raw);
    });
    this.#stream.on('data', (chunk: Buffer) => {
      if (!this.#over) receiver.onData(chunk);
    });
    this.#stream.on('end', () => {
      this.#requestEnded = true;
      if (!this.#over) receiver.onEnd(this.#requestTrailers);
    });
  }

  pause(): void {
    if (!this.#requestEnded) this.#stream.pause();
  }

  resume(): void {
    if (!this.#requestEnded) this.#stream.resume();
  }

  informational(status: number, headers: FlatHeaders): void {
    if (this.#over || this.#sent) return;
    const { headers: kept } = responseHeaders(headers);
    if (!isValid(kept)) return;
    try {
      this.#stream.additionalHeaders({ ':status': status, ...toObject(kept) });
    } catch {
      // Interim responses are optional: one that cannot be sent is not worth the final one.
    }
  }

  respond(status: number, _reason: string, headers: FlatHeaders, body: Buffer | undefined, end: boolean): boolean {
    if (this.#over || this.#sent) return false;
    const fields = responseHeaders(headers);
    // node:http2 has no status above 599.
    const valid = status >= 200 && status <= 599 && fields.valid && isValid(fields.headers);
    if (valid && this.#send(status, fields, body, end)) return true;
    this.fail('bad_response');
    return false;
  }

  switchProtocols(_headers: FlatHeaders, _first: Buffer | undefined): boolean {
    if (!this.#over && !this.#sent) this.fail('bad_response', 'the service switched protocols without being asked');
    return false;
  }

  write(chunk: Buffer): boolean {
    if (this.#over || this.#bodiless || !this.#sent) return true;
    if (this.#remaining >= 0) {
      if (chunk.length > this.#remaining) chunk = chunk.subarray(0, this.#remaining);
      this.#remaining -= chunk.length;
    }
    if (chunk.length === 0) return true;
    this.#written += chunk.length;
    if (this.#stream.write(chunk)) return true;
    if (this.#stream.listenerCount('drain') === 0) {
      this.#stream.on('drain', () => {
        if (!this.#over) this.#receiver?.onDrain();
      });
    }
    return false;
  }

  trailers(headers: FlatHeaders): void {
    if (this.#over || !this.#sent) return;
    const kept = forwardTrailers(headers);
    if (kept !== undefined && !isValid(kept)) {
      this.abort();
      return;
    }
    this.#trailers = kept;
    this.end();
  }

  end(): void {
    if (this.#over || !this.#sent) return;
    if (this.#remaining > 0 && !this.#bodiless) {
      this.abort();
      return;
    }
    this.#finish(undefined);
  }

  get isBlocked(): boolean {
    return this.#over ? this.#stream.writableLength > 0 : this.#stream.writableNeedDrain;
  }

  whenSent(callback: () => void): void {
    if (this.#stream.closed) callback();
    else this.#stream.once('close', callback);
  }

  drop(): void {
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  abort(): void {
    if (this.#over) return;
    this.#over = true;
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }

  fail(code: ErrorCode, detail?: string): void {
    if (this.#over) return;
    if (this.#sent) {
      this.abort();
      return;
    }
    const { status, headers, body } = renderError(code, this.requestId, this.accept, detail);
    if (!this.#send(status, responseHeaders(headers), body, true)) this.abort();
  }

  /** Resets the stream when the visitor has granted no window for `stallTimeout` milliseconds. */
  sweep(now: number, stallTimeout: number): void {
    const queued = this.#stream.bufferSize;
    const progress = this.#written - queued;
    if (queued === 0 || progress !== this.#progress) this.#progressAt = now;
    this.#progress = progress;
    if (now - this.#progressAt <= stallTimeout) return;
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #send(status: number, fields: ResponseFields, body: Buffer | undefined, end: boolean): boolean {
    const bodiless = this.method === 'HEAD' || status === 204 || status === 205 || status === 304;
    const length = bodiless || body === undefined ? 0 : body.length;
    const { contentLength } = fields;
    const empty = bodiless || (end && length === 0 && (contentLength ?? 0) === 0);
    const headers = status === 204 ? withoutKind(fields.headers, FieldKind.contentLength) : fields.headers;
    try {
      // A response of known length has no trailers (RFC 9110 section 6.5 leaves them to framing that marks the end).
      const waitForTrailers = !empty && !end && contentLength === undefined;
      if (waitForTrailers) this.#stream.on('wantTrailers', () => this.#sendTrailers());
      this.#stream.respond([':status', String(status), ...headers], { endStream: empty, waitForTrailers });
    } catch {
      return false;
    }
    this.#sent = true;
    this.#bodiless = bodiless;
    this.#remaining = contentLength ?? -1;
    if (empty) {
      if (end) this.#finish(undefined);
    } else if (end && (this.#remaining < 0 || length === this.#remaining)) {
      this.#finish(body);
    } else {
      if (body !== undefined) this.write(body);
      if (end) this.end();
    }
    return true;
  }

  #finish(body: Buffer | undefined): void {
    this.#over = true;
    this.#ended = true;
    if (body !== undefined) this.#written += body.length;
    if (!this.#stream.writableEnded) this.#stream.end(body);
    // RFC 9113 section 8.1: a complete response before the request's end is followed by RST_STREAM with NO_ERROR.
    if (this.#requestEnded) return;
    // node:http2 asks for trailers only on a stream that is not closing.
    if (this.#trailers === undefined) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    else this.#closesAfterTrailers = true;
  }

  #sendTrailers(): void {
    try {
      // node:http2 turns an empty list into an empty DATA frame with END_STREAM.
      this.#stream.sendTrailers(toObject(this.#trailers ?? []));
    } catch {
      // Without its trailers the response must not look complete.
      this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
      return;
    }
    // A close in the same turn would overtake the trailers.
    if (this.#closesAfterTrailers) setImmediate(() => this.#stream.close(constants.NGHTTP2_NO_ERROR));
  }

  #closed(): void {
    if (this.#ended) this.#receiver?.onFinish?.();
    if (this.#over) return;
    this.#over = true;
    this.#receiver?.onAbort();
  }
}

function isValid(headers: FlatHeaders): boolean {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (!NAME.test(headers[i] ?? '') || !VALUE.test(headers[i + 1] ?? '')) return false;
  }
  return true;
}

function toObject(headers: FlatHeaders): OutgoingHttpHeaders {
  // No prototype: a field may be called `constructor` or `__proto__`.
  const object: Record<string, string[]> = Object.create(null);
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = (headers[i] ?? '').toLowerCase();
    object[name] ??= [];
    object[name].push(headers[i + 1] ?? '');
  }
  return object;
}
