import { FieldKind, fieldKind } from './field-kind.ts';
import { RequestFields } from './hygiene.ts';
import type { VisitorPeer } from './visitor-connection.ts';

/** A request that was read and found valid, or whose `fields.fault` says why not. */
export interface ReadRequest {
  readonly method: string;
  readonly target: string;
  readonly tunnelName: string | undefined;
  readonly fields: RequestFields;
}

/** What is needed of node:http's IncomingMessage. */
export interface Http1Head {
  readonly method?: string | undefined;
  readonly url?: string | undefined;
  readonly httpVersion: string;
  readonly rawHeaders: readonly string[];
}

/**
 * Checks what llhttp lets through and node:http hides. llhttp (strict) has refused by now: obs-fold, NUL, bare CR or LF,
 * space before the colon, control characters, Content-Length twice or beside Transfer-Encoding; the tests hold it to it.
 */
export function readHttp1(head: Http1Head, peer: VisitorPeer): ReadRequest {
  const fields = new RequestFields(peer.trusted);
  fields.addAll(head.rawHeaders);
  const method = head.method ?? '';
  let target = head.url ?? '';
  if (head.httpVersion === '1.1') {
    if (fields.host === undefined) fields.refuse('no Host field');
  } else if (head.httpVersion !== '1.0') {
    fields.refuse('unknown HTTP version');
  } else if (fields.chunked) {
    // RFC 9112 section 6.1: HTTP/1.0 has no Transfer-Encoding, so the length of this message is anyone's guess.
    fields.refuse('Transfer-Encoding in HTTP/1.0');
  }
  if (target.charCodeAt(0) !== 0x2f && target !== '*') target = takeAbsoluteForm(method, target, fields);
  return check(method, target, fields, peer);
}

/** `raw` as node:http2's `stream` event gives it: names in lower case, pseudo fields first. */
export function readHttp2(raw: readonly string[], endStream: boolean, peer: VisitorPeer): ReadRequest {
  const fields = new RequestFields(peer.trusted);
  let method = '';
  let target = '';
  let authority: string | undefined;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? '';
    const value = raw[i + 1] ?? '';
    if (name.charCodeAt(0) === 0x3a) {
      if (name === ':method') method = value;
      else if (name === ':path') target = value;
      else if (name === ':authority') {
        authority = value;
        fields.addKnown(FieldKind.host, 'Host', value);
      }
      continue;
    }
    const kind = fieldKind(name);
    if (kind === FieldKind.other) fields.headers.push(name, value);
    else if (kind === FieldKind.cookie) fields.addCookieCrumb(name, value);
    else if (kind !== FieldKind.host || authority === undefined) fields.addKnown(kind, name, value);
    // RFC 9113 section 8.3.1: an intermediary that believed the one while the service believes the other is a hole.
    else if (value !== authority) fields.refuse('Host differs from :authority');
  }
  if (fields.host === undefined) fields.refuse('no :authority and no Host field');
  if (!endStream && fields.contentLength === undefined) fields.chunked = true;
  return check(method, target, fields, peer);
}

function check(method: string, target: string, fields: RequestFields, peer: VisitorPeer): ReadRequest {
  if (method === 'CONNECT') fields.refuse('CONNECT asks for a forward proxy', 'method_not_allowed');
  if (target === '*') {
    if (method !== 'OPTIONS') fields.refuse('the target "*" is for OPTIONS only');
  } else if (!isOriginForm(target)) {
    fields.refuse('the request target is not a path');
  }
  const host = fields.host;
  const entry = host === undefined ? undefined : peer.resolve(host);
  if (entry !== undefined && !entry.valid) fields.refuse('the Host field is not a host name');
  return { method, target, tunnelName: entry?.name, fields };
}

/** RFC 9112 section 3.2.2: a proxy must use the target's host and ignore the Host field it came with. */
function takeAbsoluteForm(method: string, target: string, fields: RequestFields): string {
  const found = /^https?:\/\/([^/?#]*)(\/[^#]*|\?[^#]*)?$/i.exec(target);
  const authority = found?.[1];
  if (authority === undefined || authority === '') {
    fields.refuse('the request target is neither a path nor an http URL');
    return target;
  }
  fields.replaceHost(authority);
  // RFC 9112 section 3.2.4: OPTIONS without a path is about the server as a whole.
  const path = found?.[2] ?? (method === 'OPTIONS' ? '*' : '/');
  return path.charCodeAt(0) === 0x3f ? `/${path}` : path;
}

function isOriginForm(target: string): boolean {
  if (target.charCodeAt(0) !== 0x2f) return false;
  for (let i = 1; i < target.length; i++) {
    const code = target.charCodeAt(i);
    if (code <= 0x20 || code === 0x23 || code === 0x7f) return false;
  }
  return true;
}

/**
 * The protocols of an Upgrade field that are passed on; undefined when none is. h2c and TLS would switch the visitor's
 * own connection, which is not the service's to switch (RFC 9113 section 3.1 withdrew the h2c upgrade altogether).
 */
export function forwardedUpgrade(tokens: string | undefined): string | undefined {
  if (tokens === undefined) return undefined;
  if (tokens === 'websocket') return tokens;
  const kept = tokens
    .split(',')
    .map((token) => token.trim())
    .filter((token) => token !== '' && !/^(h2c?|tls|http)(\/|$)/i.test(token));
  return kept.length === 0 ? undefined : kept.join(', ');
}
