import type { RedisAddress } from '../redis/connection.ts';
import { type Address, formatAddress, parseTarget } from './net-values.ts';
import { Refusal, type ValueType, valueType } from './option.ts';

/** How one option names a standalone Redis, one behind Sentinel, or a Redis Cluster. */

const EXPECTS =
  'a URL that starts with redis:// or rediss:// (TLS), or redis+sentinel://host,host/master, or redis+cluster://host,host (TLS: rediss+…)';

/** Ports by default: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/. */
const SENTINEL_PORT = 26379;
const REDIS_PORT = 6379;

/** User and password are of the data nodes and percent-encoded where they hold one of `@/?#%`. */
const GROUP = /^(rediss?)\+(sentinel|cluster):\/\/(?:([^@/?#]*)@)?([^@/?#]+)(?:\/([A-Za-z0-9._-]*))?$/;

/** Always matches: what comes after it begins with the first host. */
const CREDENTIALS = /^(?<scheme>[a-z+]+:\/\/)(?:(?<user>[^@/?#:]*)(?::(?<password>[^@/?#]*))?@)?/;

/** The address in the form in which it was written, once it has been found good. Messages never repeat it: it holds a password. */
export function redisUrl(): ValueType<string> {
  return valueType({
    placeholder: '<url>',
    expects: EXPECTS,
    decode: (raw) => {
      if (typeof raw !== 'string') return new Refusal(`this is not ${EXPECTS}`);
      const address = parseRedisUrl(raw);
      if (address instanceof Refusal) return address;
      return address.kind === 'single' ? address.url : raw;
    },
    encode: (value) => value,
  });
}

/** What `redis-url` says, or why it says nothing. */
export function parseRedisUrl(written: string): RedisAddress | Refusal {
  const group = GROUP.exec(written);
  return group === null ? single(written) : several(group);
}

/** Whether an address that `redisUrl` has found good holds a password. */
export function hasRedisPassword(written: string): boolean {
  return CREDENTIALS.exec(written)?.groups?.['password'] !== undefined;
}

/** The same address with this password, which may be of any characters. It keeps its user. */
export function withRedisPassword(written: string, password: string): string {
  const match = CREDENTIALS.exec(written);
  const { scheme = '', user = '' } = match?.groups ?? {};
  return `${scheme}${user}:${encodeURIComponent(password)}@${written.slice(match?.[0].length)}`;
}

function single(written: string): RedisAddress | Refusal {
  const url = URL.parse(written);
  const isRedis = url !== null && /^rediss?:$/.test(url.protocol) && url.hostname !== '';
  if (!isRedis) return new Refusal(`this is not ${EXPECTS}`);
  return isDecodable(url) ? { kind: 'single', url: url.href } : badEscape();
}

function several([, scheme = '', kind, user, hosts = '', path = '']: readonly (string | undefined)[]):
  | RedisAddress
  | Refusal {
  const addresses: Address[] = [];
  for (const host of hosts.split(',')) {
    const address = parseTarget(host, kind === 'sentinel' ? SENTINEL_PORT : REDIS_PORT);
    if (address === undefined) return new Refusal('one of its hosts is not host or host:port');
    addresses.push(address);
  }
  const urls = addresses.map(
    (address) => `${scheme}://${user === undefined ? '' : `${user}@`}${formatAddress(address)}`,
  );
  const first = URL.parse(urls[0] ?? '');
  if (first === null || !isDecodable(first)) return badEscape();
  if (kind === 'cluster') {
    return path === '' ? { kind, urls } : new Refusal('a Redis Cluster has no database or name to put after the hosts');
  }
  if (path === '') return new Refusal('the name of the master is missing: redis+sentinel://host,host/master');
  return { kind: 'sentinel', sentinels: addresses, name: path, url: first.href };
}

function isDecodable(url: URL): boolean {
  try {
    decodeURIComponent(url.username);
    decodeURIComponent(url.password);
    return true;
  } catch {
    return false;
  }
}

function badEscape(): Refusal {
  return new Refusal('its user or password is not percent-encoded: write % as %25, @ as %40, / as %2F');
}
