import { readFileSync } from 'node:fs';
import { CulvertError } from '../errors/codes.ts';
import type { RedisAddress } from '../redis/connection.ts';
import { option, Refusal } from './option.ts';
import { hasRedisPassword, parseRedisUrl, withRedisPassword } from './redis-address.ts';
import { readableFile, type SecretFile, secretFile, text } from './values.ts';

/** What every service that reads the registry is told of Redis. */

export const REDIS_URL_HELP =
  'Redis that the nodes of a cluster share, such as redis://:password@redis:6379, redis+sentinel://one,two,three/master or redis+cluster://one,two,three.';

/** Beside `redis-url`. */
export const redisAccessOptions = {
  'redis-password-file': option({
    type: secretFile(1, ''),
    unset: 'the password in redis-url, if there is one',
    help: 'File with the password of Redis, instead of one in redis-url; white space around it is ignored.',
  }),
  'redis-sentinel-password': option({
    type: text('<password>', 'a password'),
    secret: true,
    unset: 'no password',
    help: 'Password of the sentinels; that of the data nodes is in redis-url.',
  }),
  'redis-sentinel-password-file': option({
    type: secretFile(1, ''),
    help: 'File with that password; white space around it is ignored.',
  }),
  'redis-ca-cert': option({
    type: readableFile(),
    unset: 'the authorities that Node.js trusts',
    help: 'PEM certificates of the authorities that sign the certificates of Redis and its sentinels.',
  }),
};

export interface RedisValues {
  readonly redisUrl: string | undefined;
  readonly redisPasswordFile: SecretFile | undefined;
  readonly redisSentinelPassword: string | undefined;
  readonly redisSentinelPasswordFile: SecretFile | undefined;
  readonly redisCaCert: string | undefined;
}

/** The options of which one has no effect without, or beside, another. */
export const REDIS_KEYS = [
  'redis-url',
  'redis-password-file',
  'redis-sentinel-password',
  'redis-sentinel-password-file',
  'redis-ca-cert',
] as const;

export function redisProblem(
  values: RedisValues,
  name: (key: (typeof REDIS_KEYS)[number]) => string,
): string | undefined {
  const {
    redisUrl: address,
    redisPasswordFile,
    redisSentinelPassword,
    redisSentinelPasswordFile,
    redisCaCert,
  } = values;
  if (redisPasswordFile !== undefined) {
    if (address === undefined) return `${name('redis-password-file')} has no effect without redis-url: give that too`;
    if (hasRedisPassword(address)) {
      return `${name('redis-password-file')} and a password in ${name('redis-url')} exclude each other: keep one`;
    }
  }
  if (redisSentinelPassword !== undefined && redisSentinelPasswordFile !== undefined) {
    return `${name('redis-sentinel-password')} and ${name('redis-sentinel-password-file')} exclude each other: keep one`;
  }
  const isForSentinels = redisSentinelPassword !== undefined || redisSentinelPasswordFile !== undefined;
  if (isForSentinels && !/^rediss?\+sentinel:/.test(address ?? '')) {
    const useless = redisSentinelPassword === undefined ? 'redis-sentinel-password-file' : 'redis-sentinel-password';
    return `${name(useless)} has an effect only with a redis-url that starts with redis+sentinel: or rediss+sentinel:`;
  }
  if (redisCaCert !== undefined && address?.startsWith('rediss') !== true) {
    return `${name('redis-ca-cert')} has an effect only with TLS: give a redis-url that starts with rediss`;
  }
  return undefined;
}

/** The same values with the passwords of files where they belong: that of Redis in `redisUrl`. */
export function withRedisPasswords<V extends RedisValues>(values: V): V {
  const { redisUrl, redisPasswordFile, redisSentinelPassword, redisSentinelPasswordFile } = values;
  return {
    ...values,
    redisUrl:
      redisUrl === undefined || redisPasswordFile === undefined
        ? redisUrl
        : withRedisPassword(redisUrl, redisPasswordFile.content),
    redisSentinelPassword: redisSentinelPassword ?? redisSentinelPasswordFile?.content,
  };
}

/** Undefined without `redis-url`. @throws CulvertError `invalid_config` */
export function redisAddress({
  redisUrl,
  redisSentinelPassword,
  redisCaCert,
}: Pick<RedisValues, 'redisUrl' | 'redisSentinelPassword' | 'redisCaCert'>): RedisAddress | undefined {
  if (redisUrl === undefined) return undefined;
  const address = parseRedisUrl(redisUrl);
  if (address instanceof Refusal) throw new CulvertError('invalid_config', `redis-url: ${address.text}`);
  const ca = redisCaCert === undefined ? {} : { ca: readFileSync(redisCaCert, 'utf8') };
  if (address.kind !== 'sentinel' || redisSentinelPassword === undefined) return { ...address, ...ca };
  return { ...address, ...ca, sentinelPassword: redisSentinelPassword };
}
