import { CulvertError } from '../errors/codes.ts';

/**
 * Heads: the method, target and header fields that travel in front of a body.
 *
 * On the wire a head is its fields joined by LF, as Latin-1 bytes (PROTOCOL.md section 4). LF, CR and NUL can stand in no
 * HTTP field (RFC 9110 section 5.5), so joining needs no escapes: encoding is one native `join`, decoding one native
 * `split` into exactly the flat array that node:http takes. Header order, case and duplicates survive.
 */

/** Header fields in order: name, value, name, value, … Each character is one byte (Latin-1). */
export type FlatHeaders = string[];

export interface RequestHead {
  readonly method: string;
  /** Request target as the visitor sent it, in origin form (RFC 9112 section 3.2.1) or `*`. */
  readonly target: string;
  /** The tunnel's name: its subdomain or its custom domain, lower case. */
  readonly tunnel: string;
  /** Space-separated `key=value` pairs about the stream; '' is the usual. Unknown keys are ignored. */
  readonly meta: string;
  readonly headers: FlatHeaders;
}

export interface ResponseHead {
  /** 100–999; 1xx are interim (several may come), 101 turns the stream into a raw byte stream. */
  readonly status: number;
  readonly reason: string;
  readonly headers: FlatHeaders;
}

/** Largest encoded head, bytes (DESIGN.md section 3). */
export const MAX_HEAD_BYTES = 128 * 1024;

const FORBIDDEN = /[\r\0]/;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const STATUS = /^[1-9][0-9]{2}$/;
const TARGET = /^[\x21-\xff]+$/;

export function encodeRequestHead(head: RequestHead): string {
  const first = `${head.method}\n${head.target}\n${head.tunnel}\n${head.meta}`;
  return head.headers.length === 0 ? first : `${first}\n${head.headers.join('\n')}`;
}

export function encodeResponseHead(head: ResponseHead): string {
  const first = `${head.status}\n${head.reason}`;
  return head.headers.length === 0 ? first : `${first}\n${head.headers.join('\n')}`;
}

export function encodeTrailers(headers: FlatHeaders): string {
  return headers.join('\n');
}

/** @throws CulvertError `invalid_frame` when the text is not a request head. */
export function decodeRequestHead(text: string): RequestHead {
  const fields = split(text);
  const [method, target, tunnel, meta] = fields;
  if (method === undefined || target === undefined || tunnel === undefined || meta === undefined) {
    throw malformed('a request head needs a method, a target, a tunnel and its metadata');
  }
  if (!TOKEN.test(method)) throw malformed('the method is not a token');
  if (!TARGET.test(target)) throw malformed('the target is empty or has white space or control characters');
  return { method, target, tunnel, meta, headers: rest(fields, 4) };
}

/** @throws CulvertError `invalid_frame` when the text is not a response head. */
export function decodeResponseHead(text: string): ResponseHead {
  const fields = split(text);
  const [code = '', reason] = fields;
  if (!STATUS.test(code) || reason === undefined) {
    throw malformed('a response head needs a status from 100 to 999 and a reason');
  }
  return { status: Number(code), reason, headers: rest(fields, 2) };
}

/** @throws CulvertError `invalid_frame` when the text is not a list of header fields. */
export function decodeTrailers(text: string): FlatHeaders {
  return text === '' ? [] : rest(split(text), 0);
}

function split(text: string): string[] {
  if (FORBIDDEN.test(text)) throw malformed('a head holds CR or NUL');
  return text.split('\n');
}

function rest(fields: string[], from: number): FlatHeaders {
  if ((fields.length - from) % 2 !== 0) throw malformed('a header name has no value');
  for (let i = from; i < fields.length; i += 2) {
    if (!TOKEN.test(fields[i] as string)) throw malformed('a header name is not a token');
  }
  return from === 0 ? fields : fields.slice(from);
}

function malformed(why: string): CulvertError {
  return new CulvertError('invalid_frame', `malformed head: ${why}`);
}
