import { isIP, isIPv6 } from 'node:net';
import { domainToASCII } from 'node:url';
import { CulvertError } from '../errors/codes.ts';
import { normalizeTunnelName } from '../registry/names.ts';
import { Refusal, type ValueType, valueType } from './option.ts';
import { quote } from './values.ts';

/** Value types for addresses and names. */

export interface Address {
  /** Without brackets. Empty for a listener on all addresses, which `server.listen({ host, port })` takes as it is. */
  readonly host: string;
  /** 0 for a listener means a free port. */
  readonly port: number;
}

export interface Cidr {
  readonly address: string;
  /** 0–32 for ipv4, 0–128 for ipv6. */
  readonly prefix: number;
  readonly family: 'ipv4' | 'ipv6';
}

const HOST_LABEL = /^(?!-)[a-z0-9-]{1,63}(?<!-)$/;
/** Also with underscores, which container platforms put into the names of hosts. */
const PEER_LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

/** Where to listen: `:8443`, `host:port`, `[::1]:80`, or a port alone. */
export function listenAddress(): ValueType<Address> {
  const expects = 'an address to listen on, such as :8443, 127.0.0.1:8443 or [::1]:8443';
  return valueType({
    placeholder: '<host:port>',
    expects,
    decode: (raw) => {
      const written = typeof raw === 'number' || (typeof raw === 'string' && /^\d+$/.test(raw)) ? `:${raw}` : raw;
      const address = typeof written === 'string' ? parseAddress(written) : undefined;
      return address ?? new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: formatAddress,
  });
}

/** Where to connect to: `host:port` without a scheme; the port may be left out. */
export function targetAddress(defaultPort: number): ValueType<Address> {
  const expects = `a server as host:port (port ${defaultPort} when left out), without https:// before it`;
  return valueType({
    placeholder: '<host:port>',
    expects,
    decode: (raw) => {
      const address = typeof raw === 'string' ? parseTarget(raw, defaultPort) : undefined;
      return address ?? new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: formatAddress,
  });
}

/** As `parseAddress`, with a host and a port that can be dialled; `defaultPort` (1–65535) stands in for one that is left out. */
export function parseTarget(written: string, defaultPort: number): Address | undefined {
  if (written.includes('/')) return undefined;
  const bare = isIPv6(written) ? `[${written}]` : written;
  const address = parseAddress(/:\d+$/.test(bare) && !bare.endsWith(']') ? bare : `${bare}:${defaultPort}`);
  return address !== undefined && address.host !== '' && address.port > 0 ? address : undefined;
}

export function formatAddress(address: Address): string {
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** A host to connect to: a name, also with underscores, or an IP address without brackets. */
export function peerName(): ValueType<string> {
  const expects = 'a host name or an IP address, without a port';
  return valueType({
    placeholder: '<host>',
    expects,
    decode: (raw) => {
      const address = typeof raw === 'string' ? parseTarget(raw, 1) : undefined;
      return address?.port === 1 ? address.host : new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: (value) => value,
  });
}

/** A host name in lower case; an internationalised one becomes its ASCII form (RFC 5891). */
export function hostName(): ValueType<string> {
  return valueType({
    placeholder: '<domain>',
    expects: 'a domain name',
    decode: (raw) => {
      const host = typeof raw === 'string' ? asciiDomain(raw) : undefined;
      return host ?? new Refusal(`${quote(raw)} is not a domain name`);
    },
    encode: (value) => value,
  });
}

/** A domain name in which `{host}` stands for the first label of a machine's host name. @param machine its host name */
export function ownHostName(machine: () => string): ValueType<string> {
  return valueType({
    placeholder: '<domain>',
    expects: 'a domain name, with {host} for the first label of the host name',
    decode: (raw) => {
      const [label = ''] = machine().split('.');
      const host = typeof raw === 'string' ? asciiDomain(raw.replace('{host}', label)) : undefined;
      return host ?? new Refusal(`${quote(raw)} is not a domain name`);
    },
    encode: (value) => value,
  });
}

/** A tunnel's name: a subdomain (one label, RFC 1123 section 2.1) or a custom domain (with a dot); lower case ASCII. */
export function tunnelName(): ValueType<string> {
  return valueType({
    placeholder: '<name>',
    expects: 'a subdomain (1 to 63 letters, digits and hyphens, no hyphen at an end) or a domain',
    decode: parseTunnelName,
    encode: (value) => value,
  });
}

/** A tunnel's name, or the start of names followed by `*`, which stands for the rest of one label. */
export function tunnelNamePattern(): ValueType<string> {
  return valueType({
    placeholder: '<name>',
    expects: 'a name for a tunnel, the start of names such as dev-*, or * for every subdomain',
    decode: (raw) => {
      if (typeof raw === 'string' && /^[a-z0-9.-]{0,252}\*$/i.test(raw)) return raw.toLowerCase();
      return parseTunnelName(raw);
    },
    encode: (value) => value,
  });
}

/** @returns the name as the registry stores it, or why it was refused. */
export function parseTunnelName(raw: unknown): string | Refusal {
  if (typeof raw !== 'string') return new Refusal(`${quote(raw)} is not a name for a tunnel`);
  try {
    return normalizeTunnelName(raw);
  } catch (error) {
    if (error instanceof CulvertError) return new Refusal(error.message);
    throw error;
  }
}

/** A network such as `10.0.0.0/8`; an address alone is a network of one. */
export function cidr(): ValueType<Cidr> {
  return valueType({
    placeholder: '<cidr>',
    expects: 'a network such as 10.0.0.0/8 or an IP address',
    decode: (raw) => {
      const match = typeof raw === 'string' ? /^([0-9a-f.:]+)(?:\/(\d{1,3}))?$/i.exec(raw) : null;
      const version = match?.[1] === undefined ? 0 : isIP(match[1]);
      const widest = version === 4 ? 32 : 128;
      const prefix = Number(match?.[2] ?? widest);
      if (match?.[1] === undefined || version === 0 || prefix > widest) {
        return new Refusal(`${quote(raw)} is not a network: write 10.0.0.0/8, fd00::/8 or an IP address`);
      }
      return { address: match[1], prefix, family: version === 4 ? 'ipv4' : 'ipv6' };
    },
    encode: (value) => `${value.address}/${value.prefix}`,
  });
}

/** An absolute URL with one of `protocols` (`https:`); becomes its normal form. */
export function url(protocols: readonly string[]): ValueType<string> {
  return valueType({
    placeholder: '<url>',
    expects: `a URL that starts with ${protocols.map((each) => `${each}//`).join(' or ')}`,
    decode: (raw) => {
      const parsed = typeof raw === 'string' ? URL.parse(raw) : null;
      if (parsed !== null && protocols.includes(parsed.protocol) && parsed.hostname !== '') return parsed.href;
      return new Refusal(`${quote(raw)} is not a URL that starts with ${protocols.map((p) => `${p}//`).join(' or ')}`);
    },
    encode: (value) => value,
  });
}

/**
 * How a tunnel's URL is made from its name: `https://{name}.tunnel.example.com`. `{port}` stands for the port that the
 * public listener of the URL's scheme is bound to.
 */
export function urlTemplate(): ValueType<string> {
  return valueType({
    placeholder: '<template>',
    expects: 'a URL with {name} in its host, such as https://{name}.tunnel.example.com',
    decode: (raw) => {
      const refused = new Refusal(
        `${quote(raw)} is not a template: write a URL with {name} in its host and no path, such as https://{name}.tunnel.example.com`,
      );
      if (typeof raw !== 'string' || raw.split('{name}').length !== 2) return refused;
      const sample = URL.parse(expandUrlTemplate(raw, 'name', 1));
      const scheme = sample?.protocol === 'http:' || sample?.protocol === 'https:';
      const bare = sample !== null && sample.pathname === '/' && sample.search === '' && sample.hash === '';
      const usable = scheme && bare && sample.username === '' && sample.hostname.split('.').includes('name');
      return usable && !/[{}]/.test(expandUrlTemplate(raw, 'name', 1)) ? raw.replace(/\/$/, '') : refused;
    },
    encode: (value) => value,
  });
}

/** The URL of the tunnel `name` where the public listener of the template's scheme is bound to `port`. */
export function expandUrlTemplate(template: string, name: string, port: number): string {
  return template.replace('{name}', name).replace('{port}', String(port));
}

/** Which Host header the local service sees: the visitor's, the local address, or one that is given. */
export function hostHeader(): ValueType<string> {
  return valueType({
    placeholder: '<preserve|rewrite|host>',
    expects: 'preserve, rewrite, or a host',
    decode: (raw) => {
      if (typeof raw !== 'string') return new Refusal(`${quote(raw)} is not preserve, rewrite, or a host`);
      const address = parseAddress(/:\d+$/.test(raw) ? raw : `${raw}:80`);
      const valid = address !== undefined && address.host !== '';
      return valid ? raw : new Refusal(`${quote(raw)} is not preserve, rewrite, or a host`);
    },
    encode: (value) => value,
  });
}

/** Host and port of `host:port`, `[ipv6]:port` or `:port`; undefined when it is none of them. */
export function parseAddress(written: string): Address | undefined {
  const match = /^(?:\[([^\]]*)\]|([^:/\s]*)):(\d{1,5})$/.exec(written);
  if (match === null) return undefined;
  const port = Number(match[3]);
  const bracketed = match[1];
  const host = bracketed ?? peerHost(match[2] ?? '');
  if (host === undefined || port > 65535 || (bracketed !== undefined && !isIPv6(bracketed))) return undefined;
  return { host, port };
}

function peerHost(written: string): string | undefined {
  return written === '' || isIP(written) === 4 ? written : asciiDomain(written, PEER_LABEL);
}

/** RFC 1123 section 2.1: labels of letters, digits and hyphens, 253 characters in all. An IP address is no domain. */
function asciiDomain(written: string, label = HOST_LABEL): string | undefined {
  // The URL rules read a last label of digits as an IPv4 address, but `3000` alone is a good subdomain.
  if (/^\d{1,63}$/.test(written)) return written;
  // domainToASCII also decodes %-escapes and maps other full stops, so its result is what is judged.
  const ascii = /[%\s/\\@:?#]/.test(written) ? '' : domainToASCII(written);
  const valid = ascii.length <= 253 && isIP(ascii) === 0 && ascii.split('.').every((each) => label.test(each));
  return valid ? ascii : undefined;
}
