import type { FlatHeaders, RequestHead } from '../../../shared/protocol/heads.ts';
import type { Target } from './target.ts';

/** Fields that HTTP/2 does not carry (RFC 9113 section 8.2.2); Host becomes :authority. */
const NOT_IN_H2 = new Set([
  'connection',
  'host',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
]);

/** The request's pseudo-header fields and fields as the flat list that node:http2 takes, names in lower case. */
export function requestHeaders(head: RequestHead, target: Target, host: string | undefined): string[] {
  let authority = host;
  const list = [
    ':method',
    head.method,
    ':scheme',
    target.tls ? 'https' : 'http',
    ':authority',
    '',
    ':path',
    head.target,
  ];
  for (let i = 0; i < head.headers.length; i += 2) {
    const name = (head.headers[i] ?? '').toLowerCase();
    const value = head.headers[i + 1] ?? '';
    if (name === 'host') authority ??= value;
    if (NOT_IN_H2.has(name)) continue;
    // gRPC needs it, and only this value is allowed (RFC 9113 section 8.2.2).
    if (name === 'te') {
      if (/\btrailers\b/i.test(value)) list.push('te', 'trailers');
    } else {
      list.push(name, value);
    }
  }
  list[5] = authority ?? target.authority;
  return list;
}

/** The fields of a received header list, without pseudo-header fields. */
export function flatHeaders(raw: readonly string[]): FlatHeaders {
  const headers: FlatHeaders = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (name.charCodeAt(0) !== 0x3a) headers.push(name, raw[i + 1] ?? '');
  }
  return headers;
}

export function statusOf(raw: readonly string[]): number {
  const at = raw.indexOf(':status');
  return at < 0 ? 0 : Number(raw[at + 1]);
}

/** node:http2 takes trailers only as an object: a field that comes more than once has a list. */
export function trailerObject(headers: FlatHeaders): Record<string, string[]> {
  const object: Record<string, string[]> = Object.create(null);
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] ?? '').toLowerCase();
    object[name] ??= [];
    object[name].push(headers[i + 1] ?? '');
  }
  return object;
}
