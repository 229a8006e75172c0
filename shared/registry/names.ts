import { domainToASCII } from 'node:url';
import { CulvertError } from '../errors/codes.ts';

/**
 * Tunnel names as they are stored and compared: one DNS label (a subdomain of the base domain) or, when there is a dot, a
 * custom domain. Two spellings of one host name always come out as one string, or a second account could claim the other.
 */

/** RFC 1123 section 2.1: letters, digits and inner hyphens; at most 63 octets (RFC 1035 section 2.3.4). */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** The URL standard reads a host that ends in such a label as an IPv4 address, so no browser could ask for it as a name. */
const NUMERIC_LABEL = /^(?:\d+|0x[0-9a-f]*)$/;
const MAX_DOMAIN_LENGTH = 253;
const MAX_LABEL_LENGTH = 63;
/**
 * ASCII that stands in no host name. The URL parser behind domainToASCII drops tabs and line ends and stops at `/` or `?`, so
 * it would turn a name with them into another, valid name.
 */
const FORBIDDEN_ASCII = /[\0-,/:-`{-\x7f]/;
const NON_ASCII = /[^\0-\x7f]/;

export interface NameRules {
  /** Labels that no tunnel may use, lower case. Default none. */
  readonly reserved?: ReadonlySet<string>;
  /** A custom domain may not be this domain or lie under it: those hosts are the subdomains of other tunnels. Default none. */
  readonly baseDomain?: string;
}

/**
 * Validates a tunnel name and brings it to lower-case A-labels, without a trailing dot.
 * @throws CulvertError `invalid_name` with the reason.
 */
export function normalizeTunnelName(input: string, rules: NameRules = {}): string {
  if (input === '') throw invalid(input, 'is empty');
  // Bounds the work of the IDN conversion; no valid name is longer than this in any spelling.
  if (input.length > 4 * MAX_DOMAIN_LENGTH) throw invalid(input, `is longer than ${MAX_DOMAIN_LENGTH} characters`);
  const name = toAscii(input);
  const labels = name.split('.');
  const last = labels.length - 1;
  if (name.length > MAX_DOMAIN_LENGTH) throw invalid(input, `is longer than ${MAX_DOMAIN_LENGTH} characters`);
  for (const label of labels) checkLabel(input, label);
  if (last === 0) {
    if (rules.reserved?.has(name)) throw invalid(input, 'is reserved');
    return name;
  }
  if (NUMERIC_LABEL.test(labels[last] ?? '')) throw invalid(input, 'is an IP address or ends in a number');
  const base = rules.baseDomain?.toLowerCase();
  if (base !== undefined && (name === base || name.endsWith(`.${base}`))) {
    throw invalid(input, `is under the cluster's own domain ${base}; use the first label alone`);
  }
  return name;
}

function toAscii(input: string): string {
  const lower = input.toLowerCase();
  if (FORBIDDEN_ASCII.test(lower)) throw invalid(input, 'may hold only letters, digits and hyphens');
  // domainToASCII reads "123" as the IPv4 address 0.0.0.123, so plain ASCII must not pass through it.
  const ascii = NON_ASCII.test(lower) ? domainToASCII(lower) : lower;
  if (ascii === '') throw invalid(input, 'is not a valid internationalised name');
  return ascii.endsWith('.') && ascii.indexOf('.') < ascii.length - 1 ? ascii.slice(0, -1) : ascii;
}

function checkLabel(input: string, label: string): void {
  if (label === '') throw invalid(input, 'has an empty label');
  if (label.length > MAX_LABEL_LENGTH) throw invalid(input, `has a label longer than ${MAX_LABEL_LENGTH} characters`);
  if (!LABEL.test(label)) {
    throw invalid(input, 'may hold only letters, digits and hyphens, and may not start or end with a hyphen');
  }
}

function invalid(input: string, why: string): CulvertError {
  const shown = input.length > 80 ? `${input.slice(0, 80)}…` : input;
  return new CulvertError('invalid_name', `the tunnel name ${JSON.stringify(shown)} ${why}`);
}
