import { isIPv4, isIPv6 } from 'node:net';

/**
 * The PROXY protocol, versions 1 and 2, as HAProxy's specification of it says. Own code because proxy-protocol-js 4.0.6
 * (the package in use) needs the whole header in one piece, takes any text for an address, and has no UNKNOWN.
 *
 * ```
 * v1  "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"            at most 107 bytes
 * v2  12 bytes signature | version+command | family | u16 length | addresses | TLVs
 * ```
 */
export type ProxyHeader =
  | { readonly state: 'more' }
  | { readonly state: 'bad'; readonly reason: string }
  | {
      readonly state: 'done';
      /** Bytes of the header; what follows is the visitor's. */
      readonly length: number;
      /** The visitor's address; undefined (LOCAL, UNKNOWN, UNSPEC, a Unix socket): the peer speaks for itself. */
      readonly address: string | undefined;
    };

const V1_MAX = 107;
/** Addresses and TLVs. The largest address block has 216 bytes; certificates in TLVs are the only reason for more. */
const V2_MAX = 2048;
const V2_FIXED = 16;
const V1_SIGNATURE = Buffer.from('PROXY ', 'latin1');
const V2_SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1');

/** Most bytes to collect before an answer other than `more` is certain. */
export const PROXY_HEADER_MAX = V2_FIXED + V2_MAX;

const MORE: ProxyHeader = { state: 'more' };

/** Reads a header from the start of a connection. `bytes`: all that arrived; call again with more after `more`. */
export function decodeProxyHeader(bytes: Buffer): ProxyHeader {
  if (bytes.length === 0) return MORE;
  if (bytes[0] === V1_SIGNATURE[0]) return startsLike(bytes, V1_SIGNATURE) ? decodeV1(bytes) : bad('no signature');
  return startsLike(bytes, V2_SIGNATURE) ? decodeV2(bytes) : bad('no signature');
}

function decodeV1(bytes: Buffer): ProxyHeader {
  const end = bytes.subarray(0, V1_MAX).indexOf('\r\n');
  if (end < 0) return bytes.length >= V1_MAX ? bad('version 1 line is longer than 107 bytes') : MORE;
  const length = end + 2;
  const [, family, source = '', destination = '', sourcePort, destinationPort, ...extra] = bytes
    .toString('latin1', 0, end)
    .split(' ');
  // "the receiver must ignore anything presented before the CRLF" after UNKNOWN.
  if (family === 'UNKNOWN') return { state: 'done', length, address: undefined };
  const isAddress = family === 'TCP4' ? isIPv4 : family === 'TCP6' ? isIPv6 : undefined;
  if (isAddress === undefined) return bad('unknown family');
  if (extra.length > 0 || !isAddress(source) || !isAddress(destination) || source.includes('%'))
    return bad('bad address');
  if (!isPort(sourcePort) || !isPort(destinationPort)) return bad('bad port');
  return { state: 'done', length, address: source };
}

function decodeV2(bytes: Buffer): ProxyHeader {
  if (bytes.length < V2_FIXED) return MORE;
  const command = bytes.readUInt8(12);
  const family = bytes.readUInt8(13);
  const payload = bytes.readUInt16BE(14);
  if (command !== 0x20 && command !== 0x21) return bad('unknown version or command');
  if (payload > V2_MAX) return bad('version 2 header is longer than 2,064 bytes');
  const needed = family === 0x11 ? 12 : family === 0x21 ? 36 : family === 0x31 ? 216 : family === 0 ? 0 : -1;
  if (command === 0x21 && needed < 0) return bad('unknown family');
  if (command === 0x21 && payload < needed) return bad('addresses are cut short');
  const length = V2_FIXED + payload;
  if (bytes.length < length) return MORE;
  // LOCAL (a health check of the proxy itself): "the receiver must … discard the protocol block".
  if (command === 0x20) return { state: 'done', length, address: undefined };
  if (family === 0x11) return { state: 'done', length, address: bytes.subarray(16, 20).join('.') };
  if (family === 0x21) return { state: 'done', length, address: ipv6(bytes.subarray(16, 32)) };
  return { state: 'done', length, address: undefined };
}

/** RFC 5952: lower case, the longest run of zero groups compressed. */
function ipv6(bytes: Buffer): string {
  const groups: string[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes.readUInt16BE(i).toString(16));
  let from = 0;
  let run = 0;
  for (let i = 0; i < 8; i++) {
    let length = 0;
    while (groups[i + length] === '0') length += 1;
    if (length > run) [from, run] = [i, length];
  }
  if (run < 2) return groups.join(':');
  return `${groups.slice(0, from).join(':')}::${groups.slice(from + run).join(':')}`;
}

function isPort(text: string | undefined): boolean {
  return text !== undefined && /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65535;
}

function startsLike(bytes: Buffer, signature: Buffer): boolean {
  const length = Math.min(bytes.length, signature.length);
  return bytes.compare(signature, 0, length, 0, length) === 0;
}

function bad(reason: string): ProxyHeader {
  return { state: 'bad', reason };
}
