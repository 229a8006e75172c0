import { decodeJwt } from 'jose';
import { AGENT_SCHEMA } from './agent-options.ts';
import { CORE_SCHEMA } from './core-options.ts';
import { EDGE_SYNC_SCHEMA } from './edge-sync-options.ts';
import { ConfigError, type ConfigSources, load } from './load.ts';
import type { OptionMap } from './option.ts';
import { withRedisPasswords } from './redis-options.ts';
import { camelCase, type Schema, type ValuesOf } from './schema.ts';

type CoreValues = ValuesOf<typeof CORE_SCHEMA.options>;
type AgentValues = ValuesOf<typeof AGENT_SCHEMA.options>;

/** Durations are milliseconds, sizes bytes. Undefined means what REFERENCE.md says of an option that is not given. */
export type CoreConfig = Omit<CoreValues, 'publicUrl'> & {
  /** Template for `expandUrlTemplate`; holds `{port}` where the port is not known before listening. */
  readonly publicUrl: string;
};

/** Durations are milliseconds. Every service in `local` has its name. */
export type AgentConfig = Omit<AgentValues, 'token' | 'agentId' | 'subdomain'> & {
  readonly token: string;
  readonly agentId: string;
};

/**
 * Secrets and passwords are there whether they came directly or from a file; that of Redis is in `redisUrl`.
 * @throws ConfigError `invalid_config` with every problem found.
 */
export function loadCoreConfig(sources: ConfigSources): CoreConfig {
  const values = withRedisPasswords(load(CORE_SCHEMA, sources));
  return {
    ...values,
    jwtSecret: values.jwtSecret ?? values.jwtSecretFile?.content,
    clusterSecret: values.clusterSecret ?? values.clusterSecretFile?.content,
    publicUrl: values.publicUrl ?? defaultPublicUrl(values),
  };
}

/**
 * `token` is there whether it came directly or from `token-file`.
 * @throws ConfigError `invalid_config` with every problem found.
 */
export function loadAgentConfig(sources: ConfigSources): AgentConfig {
  const { subdomain, ...values } = load(AGENT_SCHEMA, sources);
  const token = values.token ?? values.tokenFile?.content ?? '';
  return {
    ...values,
    token,
    agentId: agentIdOf(token, values.agentId),
    local: values.local.map((service) => (service.name === '' ? { ...service, name: subdomain ?? '' } : service)),
  };
}

/** Durations are milliseconds. */
export type EdgeSyncConfig = ValuesOf<typeof EDGE_SYNC_SCHEMA.options>;

/** @throws ConfigError `invalid_config` with every problem found. */
export function loadEdgeSyncConfig(sources: ConfigSources): EdgeSyncConfig {
  return withRedisPasswords(load(EDGE_SYNC_SCHEMA, sources));
}

/** Options and values as a user would write them, secrets redacted, options that are not set left out. For logs. */
export function describeConfig(config: CoreConfig | AgentConfig | EdgeSyncConfig): Record<string, unknown> {
  if ('publicAddr' in config) return describe(CORE_SCHEMA, config);
  return 'haproxy' in config ? describe(EDGE_SYNC_SCHEMA, config) : describe(AGENT_SCHEMA, config);
}

function describe<S extends OptionMap>(schema: Schema<S>, config: object): Record<string, unknown> {
  const values = new Map<string, unknown>(Object.entries(config));
  const described: Record<string, unknown> = {};
  for (const [key, option] of Object.entries(schema.options)) {
    const value = values.get(camelCase(key));
    if (value !== undefined) described[key] = option.secret ? '[redacted]' : option.type.schema.encode(value);
  }
  return described;
}

function defaultPublicUrl({ baseDomain, publicAddr, publicTlsAddr }: CoreValues): string {
  const scheme = publicTlsAddr === undefined ? 'http' : 'https';
  const { port } = publicTlsAddr ?? publicAddr;
  if (port === (scheme === 'http' ? 80 : 443)) return `${scheme}://{name}.${baseDomain}`;
  return `${scheme}://{name}.${baseDomain}:${port === 0 ? '{port}' : port}`;
}

/** Not verified here: only the core can. It saves a round trip to learn that a token cannot be the right one. */
function agentIdOf(token: string, expected: string | undefined): string {
  let claims: { readonly agent_id?: unknown };
  try {
    claims = decodeJwt(token);
  } catch {
    throw new ConfigError(['token: is not a JWT; make one with "culvert token create"']);
  }
  const claimed = claims.agent_id;
  if (typeof claimed !== 'string') {
    throw new ConfigError(['token: has no agent_id claim; make one with "culvert token create"']);
  }
  if (expected !== undefined && expected !== claimed) {
    throw new ConfigError([`agent-id: the token is for agent "${claimed}", not "${expected}"`]);
  }
  return claimed;
}
