import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { FieldKind, fieldKind } from './field-kind.ts';
import { nominatedFields, withoutNominated } from './nominated.ts';
import { isRequestId, nextRequestId } from './request-id.ts';
import type { Scheme, VisitorPeer } from './visitor-connection.ts';

/** Why a request is refused; the exchange answers with `code` and ends the connection. */
export interface Fault {
  readonly code: ErrorCode;
  readonly detail: string;
}

/**
 * The fields of one request, sorted out in one pass: `headers` is what may go on to the service, the rest is what the
 * edge itself needs to know. `forwardHeaders` completes `headers`.
 */
export class RequestFields {
  headers: FlatHeaders = [];
  host: string | undefined;
  contentLength: number | undefined;
  chunked = false;
  accept: string | undefined;
  /** Upgrade tokens as sent. */
  upgrade: string | undefined;
  requestId: string | undefined;
  /** What a trusted proxy says; never set from a stranger's fields. */
  forwardedFor: string | undefined;
  forwardedProto: Scheme | undefined;
  forwardedHost: string | undefined;
  forwarded: string | undefined;
  fault: Fault | undefined;
  #connection: string | undefined;
  #hostIndex = -1;
  #cookieIndex = -1;
  #trailersWanted = false;
  readonly #trusted: boolean;

  constructor(trusted: boolean) {
    this.#trusted = trusted;
  }

  /** True when something in the head says that a body follows. */
  get hasBody(): boolean {
    return this.chunked || (this.contentLength !== undefined && this.contentLength > 0);
  }

  refuse(detail: string, code: ErrorCode = 'bad_request'): void {
    this.fault ??= { code, detail };
  }

  /** HTTP/1: the fields as they stood on the wire. */
  addAll(raw: readonly string[]): void {
    const headers = this.headers;
    for (let i = 0; i + 1 < raw.length; i += 2) {
      const name = raw[i] ?? '';
      const value = raw[i + 1] ?? '';
      const kind = fieldKind(name);
      if (kind === FieldKind.other) headers.push(name, value);
      else this.addKnown(kind, name, value);
    }
  }

  /** Takes one field whose name means something to the edge. */
  addKnown(kind: FieldKind, name: string, value: string): void {
    switch (kind) {
      case FieldKind.host:
        if (this.host !== undefined) this.refuse('more than one Host field');
        this.host = value;
        this.#hostIndex = this.headers.length;
        this.headers.push(name, value);
        return;
      case FieldKind.contentLength:
        this.#addContentLength(value);
        this.headers.push(name, value);
        return;
      case FieldKind.transferEncoding:
        // RFC 9112 section 6.1: other codings must be understood by every hop; whoever disagrees desynchronises.
        if (this.chunked || value.toLowerCase() !== 'chunked')
          this.refuse('Transfer-Encoding is not exactly "chunked"');
        if (this.contentLength !== undefined) this.refuse('both Content-Length and Transfer-Encoding');
        this.chunked = true;
        return;
      case FieldKind.connection:
        this.#connection = this.#connection === undefined ? value : `${this.#connection},${value}`;
        return;
      case FieldKind.te:
        if (/(^|[,\s])trailers\s*([,;]|$)/i.test(value)) this.#trailersWanted = true;
        return;
      case FieldKind.upgrade:
        this.upgrade = this.upgrade === undefined ? value : `${this.upgrade}, ${value}`;
        return;
      case FieldKind.accept:
        this.accept = this.accept === undefined ? value : `${this.accept}, ${value}`;
        this.headers.push(name, value);
        return;
      case FieldKind.hopByHop:
      case FieldKind.alias:
        return;
      case FieldKind.forwardedFor:
      case FieldKind.forwarded:
      case FieldKind.forwardedProto:
      case FieldKind.forwardedHost:
      case FieldKind.visitorClaim:
      case FieldKind.requestId:
        if (this.#trusted) this.#addTrusted(kind, name, value);
        return;
      default:
        this.headers.push(name, value);
    }
  }

  /** HTTP/2: joins the crumbs of a cookie where the first one stood (RFC 9113 section 8.2.3). */
  addCookieCrumb(name: string, value: string): void {
    if (this.#cookieIndex < 0) {
      this.#cookieIndex = this.headers.length;
      this.headers.push(name, value);
    } else {
      this.headers[this.#cookieIndex + 1] += `; ${value}`;
    }
  }

  /** The host of an absolute-form target replaces the Host field (RFC 9112 section 3.2.2). */
  replaceHost(host: string): void {
    this.host = host;
    if (this.#hostIndex >= 0) this.headers[this.#hostIndex + 1] = host;
    else this.headers.unshift('Host', host);
  }

  dropNominated(): void {
    const names = this.#connection === undefined ? undefined : nominatedFields(this.#connection);
    if (names !== undefined) this.headers = withoutNominated(this.headers, names);
  }

  addTe(): void {
    if (this.#trailersWanted) this.headers.push('TE', 'trailers');
  }

  #addContentLength(value: string): void {
    const length = parseLength(value);
    if (length === undefined || this.contentLength !== undefined) this.refuse('Content-Length is not one number');
    if (this.chunked) this.refuse('both Content-Length and Transfer-Encoding');
    this.contentLength = length;
  }

  #addTrusted(kind: FieldKind, name: string, value: string): void {
    switch (kind) {
      case FieldKind.forwardedFor:
        this.forwardedFor = this.forwardedFor === undefined ? value : `${this.forwardedFor}, ${value}`;
        return;
      case FieldKind.forwarded:
        this.forwarded = this.forwarded === undefined ? value : `${this.forwarded}, ${value}`;
        return;
      case FieldKind.forwardedProto:
        if (value === 'http' || value === 'https') this.forwardedProto = value;
        return;
      case FieldKind.forwardedHost:
        this.forwardedHost = value;
        return;
      case FieldKind.requestId:
        if (isRequestId(value)) this.requestId = value;
        return;
      default:
        this.headers.push(name, value);
    }
  }
}

/**
 * Completes the list for the service: nominated fields go, forwarding fields come. `upgrade`: tokens to forward, when the
 * request really is passed on as an upgrade.
 */
export function forwardHeaders(fields: RequestFields, peer: VisitorPeer, upgrade: string | undefined): FlatHeaders {
  fields.dropNominated();
  fields.addTe();
  const headers = fields.headers;
  const host = fields.host ?? '';
  fields.requestId ??= nextRequestId();
  if (upgrade !== undefined) headers.push('Connection', 'Upgrade', 'Upgrade', upgrade);
  const forwarded = peer.forwarded(host);
  headers.push(
    'X-Forwarded-For',
    join(fields.forwardedFor, peer.address),
    'X-Forwarded-Proto',
    fields.forwardedProto ?? peer.scheme,
    'Forwarded',
    join(fields.forwarded, forwarded),
    'X-Request-Id',
    fields.requestId,
  );
  const forwardedHost = fields.forwardedHost ?? host;
  if (forwardedHost !== '') headers.push('X-Forwarded-Host', forwardedHost);
  return headers;
}

/** Fields that mean something only in a header section (RFC 9110 section 6.5.1) never pass as trailers. */
export function forwardTrailers(raw: readonly string[]): FlatHeaders | undefined {
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (fieldKind(name) === FieldKind.other && !NOT_IN_TRAILERS.test(name)) kept.push(name, raw[i + 1] ?? '');
  }
  return kept.length === 0 ? undefined : kept;
}

const NOT_IN_TRAILERS =
  /^(:.*|authorization|cache-control|content-(encoding|range|type)|expect|if-.*|max-forwards|pragma|proxy-.*|range|set-cookie|www-authenticate)$/i;

/** Bytes, or undefined when the text is not a plain decimal number below 2^53. */
export function parseLength(value: string): number | undefined {
  if (value.length === 0 || value.length > 16) return undefined;
  let length = 0;
  for (let i = 0; i < value.length; i++) {
    const digit = value.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    length = length * 10 + digit;
  }
  return Number.isSafeInteger(length) ? length : undefined;
}

function join(list: string | undefined, last: string): string {
  return list === undefined || list === '' ? last : `${list}, ${last}`;
}
