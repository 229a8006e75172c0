import type { FlatHeaders } from '../../../shared/protocol/heads.ts';

/** Character classes of RFC 9110 section 5, by byte: tables, because both run once for each byte of each head. */

/** tchar: what a field name may hold (section 5.6.2). */
export const IS_TOKEN = new Uint8Array(256);
/** HTAB, SP, VCHAR and obs-text: what a field value or a reason phrase may hold (section 5.5). */
export const IS_TEXT = new Uint8Array(256);

for (const char of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  IS_TOKEN[char.charCodeAt(0)] = 1;
}
IS_TEXT.fill(1, 0x20, 0x7f).fill(1, 0x80);
IS_TEXT[0x09] = 1;

/** RFC 9110 section 6.5.1: framing, routing and hop-by-hop fields have no meaning in a trailer section. */
const NOT_IN_TRAILERS = new Set([
  'connection',
  'content-length',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** The trailer fields that may be passed on; the same array when that is all of them. */
export function cleanTrailers(headers: FlatHeaders): FlatHeaders {
  return without(headers, NOT_IN_TRAILERS);
}

/** `headers` less the fields named (lower case); the same array when there are none. */
export function without(headers: FlatHeaders, names: ReadonlySet<string>): FlatHeaders {
  let kept: FlatHeaders | undefined;
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    if (names.has(name.toLowerCase())) kept ??= headers.slice(0, i);
    else kept?.push(name, headers[i + 1] ?? '');
  }
  return kept ?? headers;
}

/** The tokens of a comma-separated list, lower case. */
export function listTokens(value: string): string[] {
  return value
    .toLowerCase()
    .split(',')
    .map((token) => token.trim())
    .filter((token) => token !== '');
}

const DIGITS = /^\d{1,16}$/;

/**
 * The length that a Content-Length value means, -1 when it is not valid. A list of equal values is one value (RFC 9110
 * section 8.6).
 */
export function contentLength(value: string): number {
  if (DIGITS.test(value)) {
    const length = Number(value);
    return Number.isSafeInteger(length) ? length : -1;
  }
  if (!value.includes(',')) return -1;
  let agreed = -1;
  for (const part of value.split(',')) {
    const text = part.trim();
    const length = DIGITS.test(text) ? Number(text) : -1;
    if (!Number.isSafeInteger(length) || length < 0 || (agreed >= 0 && agreed !== length)) return -1;
    agreed = length;
  }
  return agreed;
}
