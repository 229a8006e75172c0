import { isIP, type LookupFunction } from 'node:net';
import { CulvertError } from '../../../shared/errors/codes.ts';

/** Where a mapping leads, taken apart once. */
export interface Target {
  /** As `scheme://host:port`, for people to read. */
  readonly url: string;
  readonly protocol: 'http1' | 'h2';
  readonly tls: boolean;
  /** Name or address to connect to, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** The Host field that means the service itself; without the scheme's default port. */
  readonly authority: string;
  /** TLS server name; undefined for an address, which SNI cannot carry (RFC 6066 section 3). */
  readonly serverName: string | undefined;
  readonly loopback: boolean;
}

const SCHEMES: Readonly<Record<string, { protocol: 'http1' | 'h2'; tls: boolean; port: number }>> = {
  http: { protocol: 'http1', tls: false, port: 80 },
  https: { protocol: 'http1', tls: true, port: 443 },
  h2c: { protocol: 'h2', tls: false, port: 80 },
  h2: { protocol: 'h2', tls: true, port: 443 },
};

/** @throws CulvertError `invalid_config` when `url` is not `http`, `https`, `h2c` or `h2` with a host and nothing more. */
export function parseTarget(tunnel: string, url: string): Target {
  const refuse = (why: string): CulvertError =>
    new CulvertError('invalid_config', `tunnel "${tunnel}": "${url}" ${why}`);
  const [, schemeName, rest] = /^([a-z0-9]+):\/\/(.*)$/i.exec(url) ?? [];
  const scheme = SCHEMES[(schemeName ?? '').toLowerCase()];
  if (scheme === undefined || rest === undefined) {
    throw refuse('is not a URL with the scheme http, https, h2c or h2');
  }
  // Schemes that the URL standard does not know keep their host unparsed, so all are read as http.
  const parsed = URL.canParse(`http://${rest}`) ? new URL(`http://${rest}`) : undefined;
  if (parsed === undefined || parsed.hostname === '') throw refuse('has no valid host and port');
  if (parsed.username !== '' || parsed.password !== '') throw refuse('has credentials, which cannot be sent on');
  if (parsed.pathname !== '/' || parsed.search !== '' || parsed.hash !== '') {
    throw refuse('has a path; requests keep the path that the visitor asked for');
  }
  const explicit = /:(\d+)\/?$/.exec(rest)?.[1];
  const port = explicit === undefined ? scheme.port : Number(explicit);
  if (port < 1 || port > 65535) throw refuse('has no valid host and port');
  const host = parsed.hostname.replace(/^\[|\]$/g, '');
  return {
    url: `${schemeName}://${parsed.hostname}:${port}`,
    protocol: scheme.protocol,
    tls: scheme.tls,
    host,
    port,
    authority: port === scheme.port ? parsed.hostname : `${parsed.hostname}:${port}`,
    serverName: isIP(host) === 0 ? host : undefined,
    loopback: host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127\./.test(host),
  };
}

/**
 * RFC 6761 section 6.3: localhost is the loopback, both addresses of it. Hosts files often know one only, and a service may
 * listen on the other.
 */
const lookupLocalhost: LookupFunction = (_name, _options, callback) => {
  callback(null, [
    { address: '127.0.0.1', family: 4 },
    { address: '::1', family: 6 },
  ]);
};

/** Options of `net.connect` and its like. Every address of a name is tried (RFC 8305). */
export function addressOf(target: Target) {
  const { host, port } = target;
  const address = { host, port, autoSelectFamily: true };
  return target.loopback && isIP(host) === 0 ? { ...address, lookup: lookupLocalhost } : address;
}

/** `preserve`: the visitor's Host; `rewrite`: the local service's own; anything else is the Host to send. */
export type HostHeader = 'preserve' | 'rewrite' | (string & {});

/** The Host to send in place of the visitor's; undefined to keep that. */
export function hostOverride(mode: HostHeader, target: Target): string | undefined {
  if (mode === 'preserve') return undefined;
  return mode === 'rewrite' ? target.authority : mode;
}

export interface TlsPolicy {
  /**
   * Check the service's certificate. Default: yes, except for a service on this machine's loopback, where certificates are
   * mostly self-signed and nobody can stand in between.
   */
  readonly verify?: boolean | undefined;
  /** PEM certificates to trust in place of the system's. */
  readonly ca?: string | undefined;
}

/** Options of `tls.connect` for the target, with `alpn` as the only protocol offered. */
export function tlsOptions(target: Target, policy: TlsPolicy, alpn: 'http/1.1' | 'h2') {
  return {
    ALPNProtocols: [alpn],
    rejectUnauthorized: policy.verify ?? !target.loopback,
    ...(target.serverName === undefined ? {} : { servername: target.serverName }),
    ...(policy.ca === undefined ? {} : { ca: policy.ca }),
  };
}
