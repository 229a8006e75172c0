/**
 * Which field names mean something to the edge. Decided by length and first letter, then one comparison: no lower-cased
 * copy and no hash of the name, since this runs for every field of every request.
 */
export const FieldKind = {
  other: 0,
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  /** Hop-by-hop by its nature (RFC 9110 section 7.6.1), whatever Connection says. */
  hopByHop: 5,
  te: 6,
  upgrade: 7,
  accept: 8,
  cookie: 9,
  forwarded: 10,
  forwardedFor: 11,
  forwardedProto: 12,
  forwardedHost: 13,
  /** Another claim about who the visitor is that services believe: X-Real-IP, X-Forwarded-*. */
  visitorClaim: 14,
  requestId: 15,
  trailer: 16,
  contentDisposition: 17,
  /**
   * One of these names with an underscore for a hyphen. CGI and WSGI give `X_Forwarded_For` and `X-Forwarded-For` the
   * same variable, and some servers read `Transfer_Encoding`, so an alias slips past every check made on the real name.
   */
  alias: 18,
} as const;

export type FieldKind = (typeof FieldKind)[keyof typeof FieldKind];

export function fieldKind(name: string): FieldKind {
  const first = name.charCodeAt(0) | 0x20;
  switch (name.length) {
    case 2:
      return first === 0x74 ? match(name, 'te', FieldKind.te) : FieldKind.other;
    case 4:
      return first === 0x68 ? match(name, 'host', FieldKind.host) : FieldKind.other;
    case 6:
      if (first === 0x61) return match(name, 'accept', FieldKind.accept);
      return first === 0x63 ? match(name, 'cookie', FieldKind.cookie) : FieldKind.other;
    case 7:
      if (first === 0x75) return match(name, 'upgrade', FieldKind.upgrade);
      return first === 0x74 ? match(name, 'trailer', FieldKind.trailer) : FieldKind.other;
    case 9:
      if (first === 0x66) return match(name, 'forwarded', FieldKind.forwarded);
      return first === 0x78 ? match(name, 'x-real-ip', FieldKind.visitorClaim) : FieldKind.other;
    case 10:
      if (first === 0x63) return match(name, 'connection', FieldKind.connection);
      return first === 0x6b ? match(name, 'keep-alive', FieldKind.hopByHop) : FieldKind.other;
    case 12:
      return first === 0x78 ? match(name, 'x-request-id', FieldKind.requestId) : FieldKind.other;
    case 14:
      if (first === 0x63) return match(name, 'content-length', FieldKind.contentLength);
      return first === 0x68 ? match(name, 'http2-settings', FieldKind.hopByHop) : FieldKind.other;
    case 15:
      return first === 0x78 ? forwardedClaim(name, 'x-forwarded-for', FieldKind.forwardedFor) : FieldKind.other;
    case 16:
      if (first === 0x78) return forwardedClaim(name, 'x-forwarded-host', FieldKind.forwardedHost);
      return first === 0x70 ? match(name, 'proxy-connection', FieldKind.hopByHop) : FieldKind.other;
    case 17:
      if (first === 0x74) return match(name, 'transfer-encoding', FieldKind.transferEncoding);
      return first === 0x78 ? forwardedClaim(name, 'x-forwarded-proto', FieldKind.forwardedProto) : FieldKind.other;
    case 19:
      if (first === 0x78) return forwardedClaim(name, '', FieldKind.other);
      // RFC 9110 section 11.7.2: meant for the proxy that asked for it, not for the service behind.
      if (first === 0x70) return match(name, 'proxy-authorization', FieldKind.hopByHop);
      return first === 0x63 ? match(name, 'content-disposition', FieldKind.contentDisposition) : FieldKind.other;
    default:
      return first === 0x78 && name.length > 11 ? forwardedClaim(name, '', FieldKind.other) : FieldKind.other;
  }
}

/** X-Forwarded-anything: the given one, or a claim of the same family (-Port, -Server, -Prefix, -User …). */
function forwardedClaim(name: string, lower: string, kind: FieldKind): FieldKind {
  const second = name.charCodeAt(1);
  if ((second !== 0x2d && second !== 0x5f) || (name.charCodeAt(2) | 0x20) !== 0x66) return FieldKind.other;
  if (lower !== '') {
    const found = match(name, lower, kind);
    if (found !== FieldKind.other) return found;
  }
  return match(name, 'x-forwarded-', FieldKind.visitorClaim);
}

/** Compares the first `lower.length` characters without case; callers have made sure that the name is as long. */
function match(name: string, lower: string, kind: FieldKind): FieldKind {
  let alias = false;
  for (let i = 0; i < lower.length; i++) {
    let code = name.charCodeAt(i);
    if (code >= 0x41 && code <= 0x5a) code |= 0x20;
    else if (code === 0x5f) {
      code = 0x2d;
      alias = true;
    }
    if (code !== lower.charCodeAt(i)) return FieldKind.other;
  }
  return alias ? FieldKind.alias : kind;
}
