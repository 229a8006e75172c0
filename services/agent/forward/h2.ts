import { type ClientHttp2Stream, constants } from 'node:http2';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders, RequestHead, ResponseHead } from '../../../shared/protocol/heads.ts';
import type { Stream } from '../../../shared/protocol/stream-types.ts';
import { type ActiveRequests, Exchange } from './exchange.ts';
import { cleanTrailers } from './fields.ts';
import { flatHeaders, requestHeaders, statusOf, trailerObject } from './h2-headers.ts';
import type { H2Pool, H2Session, H2User } from './h2-pool.ts';
import { MAX_INTERIM } from './http1-parser.ts';

/** What a RST_STREAM of the service means to the visitor (RFC 9113 section 7); others: the answer was broken off. */
const BY_RST: Readonly<Record<number, ErrorCode>> = {
  [constants.NGHTTP2_REFUSED_STREAM]: 'not_processed',
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: 'overloaded',
  [constants.NGHTTP2_PROTOCOL_ERROR]: 'bad_response',
  [constants.NGHTTP2_FLOW_CONTROL_ERROR]: 'bad_response',
  [constants.NGHTTP2_FRAME_SIZE_ERROR]: 'bad_response',
  [constants.NGHTTP2_COMPRESSION_ERROR]: 'bad_response',
};

/** One request over HTTP/2 to the service, gRPC among them. */
export class H2Exchange extends Exchange implements H2User {
  readonly #pool: H2Pool;
  readonly #host: string | undefined;
  readonly #firstBody: Buffer | undefined;
  readonly #firstEnd: boolean;
  #firstCredited = false;
  #beyondFirst = false;
  #session: H2Session | undefined;
  #request: ClientHttp2Stream | undefined;
  /** Body that came before there was a session; its credit is not given back yet, which bounds it. */
  #held: Buffer[] = [];
  #requestEnded: boolean;
  #requestTrailers: FlatHeaders | undefined;
  #trailers: FlatHeaders | undefined;
  #owed = 0;
  #interim = 0;
  #retried = false;
  #complete = false;

  constructor(
    active: ActiveRequests,
    pool: H2Pool,
    host: string | undefined,
    stream: Stream,
    head: RequestHead,
    body: Buffer | undefined,
    end: boolean,
  ) {
    super(active, stream, head);
    this.#pool = pool;
    this.#host = host;
    this.#firstBody = body !== undefined && body.length > 0 ? body : undefined;
    this.#firstEnd = end;
    this.#requestEnded = end;
    this.bytesIn = body?.length ?? 0;
    if (head.method === 'CONNECT') this.failLater('method_not_allowed', 'CONNECT cannot be forwarded to a service');
    else this.join(this.#pool, this);
  }

  onSession(session: H2Session): void {
    this.#session = session;
    this.progress();
    const headers = requestHeaders(this.head, this.#pool.target, this.#host);
    const bare = this.#firstEnd && this.#firstBody === undefined;
    let request: ClientHttp2Stream;
    try {
      request = session.client.request(headers, { endStream: bare, waitForTrailers: !this.#firstEnd });
    } catch (error) {
      // Node checks names and values once more, and a session may be closing since it was chosen.
      this.#session = undefined;
      this.#pool.release(session);
      this.failLater('bad_request', `the request cannot be sent over HTTP/2: ${String(error)}`);
      return;
    }
    this.#request = request;
    this.#listen(request, session);
    if (this.#firstBody !== undefined) {
      this.#send(request, this.#firstBody, this.#firstCredited ? 0 : this.#firstBody.length);
      this.#firstCredited = this.#owed === 0;
    }
    for (const chunk of this.#held) {
      this.#beyondFirst = true;
      this.#send(request, chunk, chunk.length);
    }
    this.#held = [];
    if (this.#requestEnded && !bare) request.end();
  }

  onConnectFailed(code: ErrorCode, message: string): void {
    this.fail(code, message);
  }

  onData(chunk: Buffer, end: boolean): void {
    if (this.settled) return;
    this.bytesIn += chunk.length;
    this.progress();
    if (this.#request === undefined) {
      if (chunk.length > 0) this.#held.push(chunk);
    } else if (chunk.length > 0) {
      this.#beyondFirst = true;
      this.#send(this.#request, chunk, chunk.length);
    }
    if (end) this.#endRequest();
  }

  onTrailers(headers: FlatHeaders): void {
    if (this.settled) return;
    this.#requestTrailers = cleanTrailers(headers);
    this.#endRequest();
  }

  onWritable(): void {
    this.#request?.resume();
  }

  override onClose(code: ErrorCode | undefined, message: string): void {
    if (code === undefined && this.#complete) return;
    super.onClose(code, message);
  }

  protected override abort(): void {
    this.#held = [];
    if (this.#session === undefined) this.#pool.cancel(this);
    else this.#request?.close(constants.NGHTTP2_CANCEL);
  }

  #send(request: ClientHttp2Stream, chunk: Buffer, credit: number): void {
    if (!request.write(chunk)) this.#owed += credit;
    else if (credit > 0) this.stream.consumed(credit);
  }

  #endRequest(): void {
    this.#requestEnded = true;
    this.progress();
    this.#request?.end();
  }

  #listen(request: ClientHttp2Stream, session: H2Session): void {
    request.on('headers', (_headers, _flags, raw: string[]) => this.#onInterim(raw));
    request.on('response', (_headers, flags, raw: string[]) => this.#onResponse(raw, flags));
    request.on('data', (chunk: Buffer) => {
      if (this.settled || this.#request !== request) return;
      this.bytesOut += chunk.length;
      if (!this.stream.write(chunk, false)) request.pause();
    });
    // Trailers are announced as they arrive, which may be before the data in front of them has been read.
    request.on('trailers', (_headers, _flags, raw: string[]) => {
      this.#trailers = cleanTrailers(flatHeaders(raw));
    });
    request.on('end', () => this.#onEnd());
    request.on('wantTrailers', () => {
      try {
        request.sendTrailers(trailerObject(this.#requestTrailers ?? []));
      } catch {
        this.fail('bad_request', 'the trailers cannot be sent over HTTP/2');
      }
    });
    request.on('drain', () => this.#drained());
    // There is no 'drain' after end().
    request.on('finish', () => this.#drained());
    let reason = '';
    request.on('error', (error: NodeJS.ErrnoException) => {
      reason = error.message;
    });
    request.on('close', () => {
      const { reused } = session;
      this.#pool.release(session);
      if (this.#request === request) this.#onRequestClosed(request.rstCode, reused, reason);
    });
  }

  #drained(): void {
    const bytes = this.#owed;
    this.#owed = 0;
    this.#firstCredited = true;
    if (this.settled) return;
    this.progress();
    if (bytes > 0) this.stream.consumed(bytes);
  }

  #onInterim(raw: string[]): void {
    if (this.settled) return;
    this.progress();
    const status = statusOf(raw);
    // RFC 9113 section 8.6: there is no 101 in HTTP/2.
    if (++this.#interim > MAX_INTERIM || status === 101)
      this.fail('bad_response', 'too many or wrong interim responses');
    else this.stream.sendHead({ status, reason: '', headers: flatHeaders(raw) }, undefined, false);
  }

  #onResponse(raw: string[], flags: number): void {
    if (this.settled) return;
    const head: ResponseHead = { status: statusOf(raw), reason: '', headers: flatHeaders(raw) };
    this.answered = true;
    this.status = head.status;
    const end = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
    if (end) this.#complete = true;
    if (!this.stream.sendHead(head, undefined, end) && !end) this.#request?.pause();
    if (end) this.#finish();
  }

  #onEnd(): void {
    // A reset ends what was received too, and 'close' tells it from a real end. Node hides whether END_STREAM came before a
    // reset with NO_ERROR, which a service may send only after it (RFC 9113 section 8.1).
    if (this.settled || !this.answered || this.#request?.rstCode !== constants.NGHTTP2_NO_ERROR) return;
    this.#complete = true;
    if (this.#trailers !== undefined && this.#trailers.length > 0) this.stream.sendTrailers(this.#trailers);
    else this.stream.end();
    this.#finish();
  }

  #finish(): void {
    if (this.settled) return;
    const request = this.#request;
    // NO_ERROR: the answer was complete, only the rest of the request is not wanted (RFC 9113 section 8.1). A service that
    // never reads that rest would keep the stream for good.
    if (!this.#requestEnded || (request?.writableLength ?? 0) > 0) request?.close(constants.NGHTTP2_NO_ERROR);
    if (!this.#requestEnded) this.stream.finish();
    this.settle(undefined);
  }

  #onRequestClosed(rstCode: number | undefined, reused: boolean, reason: string): void {
    if (this.settled) return;
    const refused = rstCode === constants.NGHTTP2_REFUSED_STREAM;
    const harmless = refused || (reused && this.idempotent);
    if (harmless && !this.answered && this.#interim === 0 && !this.#retried && !this.#beyondFirst) {
      // Refused (also by GOAWAY), or the service closed an idle session while the request was on its way.
      this.#retried = true;
      this.#request = undefined;
      this.#session = undefined;
      this.#owed = 0;
      this.join(this.#pool, this);
      return;
    }
    const code = BY_RST[rstCode ?? 0] ?? 'connection_closed';
    const usable = code === 'not_processed' && this.answered ? 'connection_closed' : code;
    this.fail(usable, `the service reset the stream (HTTP/2 error ${rstCode ?? 0}) ${reason}`.trim());
  }
}
