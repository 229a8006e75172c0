import type { FlatHeaders } from '../../../shared/protocol/heads.ts';

/**
 * Fields that a Connection option cannot remove. RFC 9110 section 7.6.1 has an intermediary drop every field named there,
 * and forbids senders to name fields meant for all recipients. "Hop-by-hop abuse" does just that: `Connection: Cookie,
 * Authorization, X-Forwarded-For` makes a proxy strip what the service decides by (logged in? from where? how long?).
 */
const END_TO_END = new Set(
  (
    'host content-length content-type content-encoding content-language content-location content-range content-disposition ' +
    'cookie set-cookie authorization www-authenticate authentication-info origin referer date vary etag age expires ' +
    'last-modified location retry-after allow accept accept-charset accept-encoding accept-language accept-ranges ' +
    'cache-control pragma expect from range if-match if-none-match if-modified-since if-unmodified-since if-range ' +
    'max-forwards user-agent server trailer forwarded x-forwarded-for x-forwarded-proto x-forwarded-host ' +
    'x-forwarded-port x-real-ip x-request-id strict-transport-security content-security-policy ' +
    'access-control-request-method access-control-request-headers sec-websocket-key sec-websocket-version ' +
    'sec-websocket-protocol sec-websocket-extensions sec-websocket-accept sec-fetch-site sec-fetch-mode'
  ).split(' '),
);

/** Options without a field of their own, or whose field has its own rule. */
const PLAIN_OPTIONS = new Set(['', 'close', 'keep-alive', 'upgrade', 'te', 'http2-settings']);

/** Lower-case names that this Connection value asks to drop, among those that may be; undefined when there are none. */
export function nominatedFields(connection: string): Set<string> | undefined {
  if (isPlain(connection)) return undefined;
  let names: Set<string> | undefined;
  for (const part of connection.split(',')) {
    const name = part.trim().toLowerCase();
    if (PLAIN_OPTIONS.has(name) || END_TO_END.has(name) || name.startsWith('access-control-')) continue;
    names ??= new Set();
    names.add(name);
  }
  return names;
}

export function withoutNominated(headers: FlatHeaders, names: Set<string>): FlatHeaders {
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? '';
    if (!names.has(name.toLowerCase())) kept.push(name, headers[i + 1] ?? '');
  }
  return kept;
}

function isPlain(value: string): boolean {
  return value === 'keep-alive' || value === 'close' || value === 'Keep-Alive' || value === 'Upgrade';
}
