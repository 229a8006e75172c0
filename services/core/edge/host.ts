import { isIP } from 'node:net';
import { domainToASCII } from 'node:url';

/** What a Host field or `:authority` stands for. */
export interface HostEntry {
  /** False when it is not a host with an optional port; such a request is refused. */
  readonly valid: boolean;
  /** The subdomain under the base domain, or the whole host as a custom domain; undefined when it can be no tunnel. */
  readonly name: string | undefined;
}

/** RFC 1035 allows 253 characters; the rest is for a port and a trailing dot. */
const MAX_HOST = 260;
const INVALID: HostEntry = { valid: false, name: undefined };
const NO_TUNNEL: HostEntry = { valid: true, name: undefined };

/** @param baseDomain lower case, without dots at its ends */
export function tunnelName(hostHeader: string, baseDomain: string): string | undefined {
  return resolveHost(hostHeader, baseDomain).name;
}

export function resolveHost(hostHeader: string, baseDomain: string): HostEntry {
  if (hostHeader.length === 0 || hostHeader.length > MAX_HOST) return INVALID;
  if (hostHeader.charCodeAt(0) === 0x5b) return resolveLiteral(hostHeader);
  const colon = hostHeader.indexOf(':');
  if (colon >= 0 && !isPort(hostHeader, colon + 1)) return INVALID;
  let host = colon < 0 ? hostHeader : hostHeader.slice(0, colon);
  if (/[^\x20-\x7e]/.test(host)) {
    // Not legal in a Host field, yet sent by simple clients as UTF-8 bytes, which node:http reads as Latin-1.
    host = domainToASCII(Buffer.from(host, 'latin1').toString('utf8'));
  }
  if (!/^[a-z0-9._-]+$/i.test(host)) return INVALID;
  host = host.toLowerCase();
  if (host.endsWith('.')) host = host.slice(0, -1);
  if (host === '' || host.startsWith('.') || host.includes('..') || host.endsWith('.')) return INVALID;
  if (host === baseDomain || isIP(host) === 4) return NO_TUNNEL;
  if (host.endsWith(baseDomain) && host.charCodeAt(host.length - baseDomain.length - 1) === 0x2e) {
    const label = host.slice(0, -baseDomain.length - 1);
    return label.includes('.') ? NO_TUNNEL : { valid: true, name: label };
  }
  // A lone label outside the base domain must not reach the subdomain tunnel of the same name.
  return host.includes('.') ? { valid: true, name: host } : NO_TUNNEL;
}

function resolveLiteral(host: string): HostEntry {
  const close = host.indexOf(']');
  if (close < 0 || isIP(host.slice(1, close)) !== 6) return INVALID;
  if (close === host.length - 1) return NO_TUNNEL;
  return host.charCodeAt(close + 1) === 0x3a && isPort(host, close + 2) ? NO_TUNNEL : INVALID;
}

/** RFC 3986 section 3.2.3: `port = *DIGIT`, so none after the colon is legal too. */
function isPort(host: string, from: number): boolean {
  if (host.length - from > 5) return false;
  for (let i = from; i < host.length; i++) {
    const code = host.charCodeAt(i);
    if (code < 0x30 || code > 0x39) return false;
  }
  return true;
}

/**
 * Remembers what hosts resolve to, so that the hot path is one Map lookup. Two generations: what is used moves to the
 * young one, and when that is full the old one goes. A flood of random hosts therefore costs only the hosts that are
 * not asked for while half the capacity goes by, and no list is kept in order.
 */
export class HostTable {
  readonly #baseDomain: string;
  readonly #half: number;
  #young = new Map<string, HostEntry>();
  #old = new Map<string, HostEntry>();

  /**
   * @param baseDomain domain whose direct subdomains are tunnels, in any case
   * @param capacity most hosts remembered
   */
  constructor(baseDomain: string, capacity = 4096) {
    this.#baseDomain = baseDomain.toLowerCase();
    this.#half = Math.max(1, capacity >> 1);
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  resolve(host: string): HostEntry {
    const entry = this.#young.get(host);
    if (entry !== undefined) return entry;
    if (host.length > MAX_HOST) return INVALID;
    const found = this.#old.get(host) ?? resolveHost(host, this.#baseDomain);
    if (this.#young.size >= this.#half) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(host, found);
    return found;
  }
}
