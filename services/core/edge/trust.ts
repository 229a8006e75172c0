import { BlockList, isIP } from 'node:net';
import { CulvertError } from '../../../shared/errors/codes.ts';

/** Says whether an address (IPv4, IPv6, no zone, not IPv4-mapped) belongs to a proxy whose word is taken. */
export type Trust = (address: string) => boolean;

/**
 * @param ranges addresses (`10.0.0.7`) and CIDR ranges (`10.0.0.0/8`, `fd00::/8`)
 * @throws CulvertError `invalid_config` when one of them is neither.
 */
export function createTrust(ranges: readonly string[]): Trust {
  if (ranges.length === 0) return () => false;
  const list = new BlockList();
  for (const range of ranges) addRange(list, range);
  return (address) => {
    const version = isIP(address);
    return version !== 0 && list.check(address, version === 6 ? 'ipv6' : 'ipv4');
  };
}

function addRange(list: BlockList, range: string): void {
  const slash = range.indexOf('/');
  const address = slash < 0 ? range : range.slice(0, slash);
  const version = isIP(address);
  const family = version === 6 ? 'ipv6' : 'ipv4';
  const bits = slash < 0 ? '' : range.slice(slash + 1);
  const valid = version !== 0 && (slash < 0 || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 6 ? 128 : 32)));
  if (!valid) throw new CulvertError('invalid_config', `"${range}" is neither an IP address nor a CIDR range`);
  if (slash < 0) list.addAddress(address, family);
  else list.addSubnet(address, Number(bits), family);
}

/** The form used everywhere in the edge: no IPv4-mapped IPv6 (`::ffff:10.0.0.1`), no zone (`fe80::1%eth0`). */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return 'unknown';
  if (address.startsWith('::ffff:') && isIP(address.slice(7)) === 4) return address.slice(7);
  const zone = address.indexOf('%');
  return zone < 0 ? address : address.slice(0, zone);
}
