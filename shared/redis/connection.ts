import { isIP } from 'node:net';
import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { CulvertError } from '../errors/codes.ts';
import type { Logger } from '../observability/logger.ts';

/** Where Redis is. User, password and TLS come with the URL: `rediss://user:password@host:6379`. */
export type RedisAddress = (
  | { readonly kind: 'single'; readonly url: string }
  /** `url` gives the credentials of the data nodes, and whether they and the sentinels speak TLS; its host is not used. */
  | {
      readonly kind: 'sentinel';
      readonly sentinels: readonly HostPort[];
      readonly name: string;
      readonly url?: string;
      readonly sentinelPassword?: string;
    }
  | { readonly kind: 'cluster'; readonly urls: readonly string[] }
) & {
  /** PEM of the authorities that may have signed the servers' certificates. Default: those that Node.js trusts. */
  readonly ca?: string;
};

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export type RedisClient = Redis | Cluster;

/** Its `replyMapping` is a type parameter of the client, which inexact options would leave open. */
type ConnectionOptions = Omit<RedisOptions, 'replyMapping'>;

export interface Link {
  /** Fails at once while there is no connection: a claim is never kept for later. */
  readonly commands: RedisClient;
  /** Receives events. The same client on a Cluster, which keeps a connection for them by itself. */
  readonly events: RedisClient;
  close(): void;
}

/** Longest pause between two attempts to connect, milliseconds, before jitter. */
const MAX_BACKOFF = 2000;

/** @param timeout milliseconds that one command may take */
export function connect(address: RedisAddress, timeout: number, log: Logger): Link {
  const open = opener(address, timeout, log);
  const commands = open(address.kind === 'cluster' ? 'cluster' : 'commands', timeout);
  // A cluster's client keeps a connection for events by itself.
  const events = address.kind === 'cluster' ? commands : open('events');
  return {
    commands: commands.client,
    events: events.client,
    close() {
      commands.close();
      events.close();
    },
  };
}

/** A connection of its own, for commands whose loss and delay must not touch others. @param use for log lines */
export function connectCommands(
  address: RedisAddress,
  timeout: number,
  log: Logger,
  use: string,
): Omit<Link, 'events'> {
  const { client, close } = opener(address, timeout, log)(use, timeout);
  return { commands: client, close };
}

interface Opened {
  readonly client: RedisClient;
  close(): void;
}

function opener(address: RedisAddress, timeout: number, log: Logger): (use: string, commandTimeout?: number) => Opened {
  const common = {
    protocol: 2,
    connectTimeout: 2 * timeout,
    enableOfflineQueue: false,
    // A command of unknown outcome is not sent twice: the caller hears that it failed, the audit cleans up after it.
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    retryStrategy: backoff,
    // A replica that was a master until the failover: look for the new one.
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
  } satisfies RedisOptions;
  if (address.kind === 'cluster') {
    const first = new URL(address.urls[0] ?? 'redis://127.0.0.1:6379');
    const { retryStrategy: _, enableOfflineQueue: __, ...perNode } = common;
    return (use) => {
      const cluster = new Cluster([...address.urls], {
        clusterRetryStrategy: backoff,
        enableOfflineQueue: false,
        slotsRefreshTimeout: 2 * timeout,
        redisOptions: { ...perNode, ...credentials(first), ...tlsFor(first, address.ca), commandTimeout: timeout },
      });
      return closable(cluster, watch(cluster, use, log));
    };
  }
  const place = address.kind === 'single' ? hostOf(new URL(address.url), address.ca) : sentinelsOf(address);
  return (use, commandTimeout) => {
    const client = new Redis({ ...common, ...place, ...(commandTimeout === undefined ? {} : { commandTimeout }) });
    return closable(client, watch(client, use, log), keepTrying(client));
  };
}

function closable(client: RedisClient, ...stops: readonly (() => void)[]): Opened {
  return {
    client,
    close() {
      for (const stop of stops) stop();
      client.disconnect();
    },
  };
}

/** Full jitter on half of it, so that nodes do not all come back in the same moment. */
function backoff(attempt: number): number {
  const delay = Math.min(MAX_BACKOFF, 50 * 2 ** Math.min(attempt, 10));
  return delay / 2 + (Math.random() * delay) / 2;
}

function hostOf(url: URL, ca: string | undefined): ConnectionOptions {
  const db = Number(url.pathname.slice(1));
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const { tls } = tlsFor(url, ca);
  return {
    host,
    port: url.port === '' ? 6379 : Number(url.port),
    ...(Number.isInteger(db) ? { db } : {}),
    ...credentials(url),
    // RFC 6066 section 3: an address is no server name.
    ...(tls === undefined ? {} : { tls: isIP(host) === 0 ? { ...tls, servername: host } : tls }),
  };
}

function sentinelsOf(address: Extract<RedisAddress, { kind: 'sentinel' }>): ConnectionOptions {
  const url = new URL(address.url ?? 'redis://sentinel');
  const { tls } = tlsFor(url, address.ca);
  return {
    sentinels: address.sentinels.map((sentinel) => ({ ...sentinel })),
    name: address.name,
    sentinelRetryStrategy: backoff,
    failoverDetector: true,
    sentinelReconnectStrategy: () => MAX_BACKOFF,
    ...(address.sentinelPassword === undefined ? {} : { sentinelPassword: address.sentinelPassword }),
    ...credentials(url),
    ...(tls === undefined ? {} : { tls, sentinelTLS: tls, enableTLSForSentinelMode: true }),
  };
}

function credentials(url: URL): { username?: string; password?: string } {
  return {
    ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
  };
}

/** Without a server name: in a group every server's certificate is checked against the host that is dialled. */
function tlsFor(url: URL, ca: string | undefined): { tls?: { ca?: string } } {
  return url.protocol === 'rediss:' ? { tls: ca === undefined ? {} : { ca } } : {};
}

/**
 * ioredis gives a connection up for good when a sentinel announces the failover in the moment in which it asks the sentinels for
 * the master: its failover detector ends the attempt that is under way as if somebody had closed the connection
 * (SentinelConnector, `connecting`). The end of one that nobody closed is one more failed attempt.
 * @returns what lets the connection end
 */
function keepTrying(client: Redis): () => void {
  let attempts = 0;
  let timer: NodeJS.Timeout | undefined;
  const again = (): void => {
    attempts += 1;
    timer = setTimeout(() => client.connect().catch(() => {}), backoff(attempts));
  };
  client.on('end', again);
  client.on('ready', () => {
    attempts = 0;
  });
  return () => {
    client.off('end', again);
    clearTimeout(timer);
  };
}

/**
 * One line when the connection goes and one when it is back, not one for each attempt.
 * @returns what ends the lines, for a connection that is closed on purpose
 */
function watch(client: RedisClient, use: string, log: Logger): () => void {
  let up = false;
  let cause: Error | undefined;
  client.on('error', (error: Error) => {
    cause = error;
  });
  client.on('ready', () => {
    up = true;
    cause = undefined;
    log.info({ use }, 'connected to redis');
  });
  client.on('close', () => {
    if (up) log.warn({ use, err: cause }, 'the connection to redis is lost; trying again');
    up = false;
  });
  return () => {
    up = false;
  };
}

/** Whatever keeps Redis from answering. */
export function unavailable(error: unknown): CulvertError {
  if (error instanceof CulvertError) return error;
  const why = error instanceof Error ? error.message : String(error);
  return new CulvertError('registry_unavailable', `redis: ${why}`, { cause: error });
}
