import { isIPv6 } from 'node:net';
import type { HostEntry, HostTable } from './host.ts';
import type { Trust } from './trust.ts';

/** What all connections of one listener share. */
export interface EdgeState {
  readonly trust: Trust;
  readonly hosts: HostTable;
  /** True once the listener closes: answers then say that the connection ends. */
  closing: boolean;
}

export type Scheme = 'http' | 'https';

/**
 * The peer at the other end of one connection, and what can be computed once for all of its requests: the values of the
 * forwarding fields hang on the peer and, nearly always the same one, the host.
 */
export class VisitorPeer {
  /** Without IPv4 mapping or zone. */
  readonly address: string;
  /** True for a proxy whose forwarding fields are believed. */
  readonly trusted: boolean;
  readonly scheme: Scheme;
  readonly state: EdgeState;
  readonly #forwardedStart: string;
  #host = '';
  #entry: HostEntry | undefined;
  #forwarded = '';

  constructor(address: string, scheme: Scheme, state: EdgeState) {
    this.address = address;
    this.trusted = state.trust(address);
    this.scheme = scheme;
    this.state = state;
    this.#forwardedStart = `for=${forwardedNode(address)};proto=${scheme}`;
  }

  resolve(host: string): HostEntry {
    if (host === this.#host && this.#entry !== undefined) return this.#entry;
    const entry = this.state.hosts.resolve(host);
    this.#host = host;
    this.#entry = entry;
    this.#forwarded = '';
    return entry;
  }

  /** One element of a Forwarded field (RFC 7239). */
  forwarded(host: string): string {
    if (host !== this.#host) this.resolve(host);
    if (this.#forwarded === '') {
      // RFC 7239 section 4: a port's colon and a literal's brackets are not token characters, so they need quotes.
      const value = /^[\w.-]+$/.test(host) ? host : `"${host}"`;
      this.#forwarded = host === '' ? this.#forwardedStart : `${this.#forwardedStart};host=${value}`;
    }
    return this.#forwarded;
  }

  /** The visitor behind a trusted proxy: the last address in its list that is not itself a trusted proxy's. */
  visitorAddress(forwardedFor: string): string {
    let end = forwardedFor.length;
    let address = this.address;
    // A list longer than any real chain of proxies is the visitor's own invention.
    for (let hops = 0; hops < 16 && end > 0; hops++) {
      const comma = forwardedFor.lastIndexOf(',', end - 1);
      const candidate = bareAddress(forwardedFor.slice(comma + 1, end).trim());
      if (candidate === undefined) return address;
      address = candidate;
      if (comma <= 0 || !this.state.trust(address)) return address;
      end = comma;
    }
    return address;
  }
}

/** The address in an X-Forwarded-For element, some of which carry a port: `192.0.2.1:99`, `[2001:db8::1]:99`. */
function bareAddress(element: string): string | undefined {
  if (element.startsWith('[')) {
    const inner = element.slice(1, element.indexOf(']'));
    return isIPv6(inner) ? inner : undefined;
  }
  const address = element.startsWith('::ffff:') && element.includes('.') ? element.slice(7) : element;
  if (isIPv6(address)) return address;
  return /^\d{1,3}(\.\d{1,3}){3}(:\d{1,5})?$/.test(address) ? address.split(':')[0] : undefined;
}

/** RFC 7239 section 6: IPv6 in brackets and quotes, since its colons are not token characters. */
function forwardedNode(address: string): string {
  return isIPv6(address) ? `"[${address}]"` : address;
}
