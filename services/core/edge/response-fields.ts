import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { FieldKind, fieldKind } from './field-kind.ts';
import { parseLength } from './hygiene.ts';
import { nominatedFields, withoutNominated } from './nominated.ts';

/** A response head on its way to the visitor. */
export interface ResponseFields {
  /** The same array as given when nothing had to go. */
  readonly headers: FlatHeaders;
  /** Bytes; undefined without Content-Length. */
  readonly contentLength: number | undefined;
  /** False when the framing is not valid: Content-Length that is no number, or says two things. */
  readonly valid: boolean;
  readonly hasTrailer: boolean;
  /** Content-Disposition is there, which node:http re-encodes when it follows Content-Length (see `Http1Exchange`). */
  readonly hasDisposition: boolean;
}

/**
 * Removes what belongs to the hop between the service and us (RFC 9110 section 7.6.1). Connection-specific fields are an
 * error in HTTP/2 (RFC 9113 section 8.2.2), and Transfer-Encoding is for each connection's own writer to choose.
 */
export function responseHeaders(headers: FlatHeaders): ResponseFields {
  let drop = false;
  let lengths = 0;
  let contentLength: number | undefined;
  let valid = headers.length % 2 === 0;
  let hasTrailer = false;
  let hasDisposition = false;
  let connection: string | undefined;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? '';
    const kind = fieldKind(name);
    if (kind === FieldKind.other) continue;
    const value = headers[i + 1] ?? '';
    if (kind === FieldKind.contentLength) {
      const length = parseLength(value);
      if (length === undefined || (lengths > 0 && length !== contentLength)) valid = false;
      contentLength = length;
      lengths += 1;
    } else if (kind === FieldKind.trailer) {
      hasTrailer = true;
    } else if (kind === FieldKind.contentDisposition) {
      hasDisposition = true;
    } else if (isHopByHop(kind)) {
      drop = true;
      if (kind === FieldKind.connection) connection = connection === undefined ? value : `${connection},${value}`;
    }
  }
  if (drop || lengths > 1) headers = filter(headers);
  const names = connection === undefined ? undefined : nominatedFields(connection);
  if (names !== undefined) headers = withoutNominated(headers, names);
  return { headers, contentLength, valid, hasTrailer, hasDisposition };
}

/** Drops every field of this kind, in place order. */
export function withoutKind(headers: FlatHeaders, unwanted: FieldKind): FlatHeaders {
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? '';
    if (fieldKind(name) !== unwanted) kept.push(name, headers[i + 1] ?? '');
  }
  return kept;
}

function filter(headers: FlatHeaders): FlatHeaders {
  const kept: FlatHeaders = [];
  let sawLength = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? '';
    const kind = fieldKind(name);
    if (isHopByHop(kind)) continue;
    if (kind === FieldKind.contentLength) {
      if (sawLength) continue;
      sawLength = true;
    }
    kept.push(name, headers[i + 1] ?? '');
  }
  return kept;
}

function isHopByHop(kind: FieldKind): boolean {
  return (
    kind === FieldKind.connection ||
    kind === FieldKind.hopByHop ||
    kind === FieldKind.transferEncoding ||
    kind === FieldKind.te ||
    kind === FieldKind.upgrade
  );
}
