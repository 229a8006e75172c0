import { SignJWT } from 'jose';
import { identifier, MIN_HS256_SECRET_BYTES, SHORT_SECRET } from '../../shared/config/common-options.ts';
import { load } from '../../shared/config/load.ts';
import { tunnelNamePattern } from '../../shared/config/net-values.ts';
import { type Environment, option } from '../../shared/config/option.ts';
import { defineSchema } from '../../shared/config/schema.ts';
import { duration, integer, listOf, oneOf, secretFile, secretText, text } from '../../shared/config/values.ts';
import { ROLES } from '../../shared/control/principal.ts';
import { API_AUDIENCE } from '../../shared/tokens/claims.ts';

const FOR_AGENTS = ['agent-id', 'names', 'max-tunnels', 'max-connections'] as const;

/** `culvert token create`: makes a token for an agent, or with `role` one for the API. */
export const TOKEN_SCHEMA = defineSchema({
  service: 'token create',
  envPrefix: undefined,
  options: {
    'agent-id': option({
      type: identifier(),
      unset: 'required, unless role is given',
      help: 'Agent that the token is for.',
    }),
    'account-id': option({
      type: identifier(),
      unset: 'required for an agent; with role: every account',
      help: 'Account that owns what the agent registers; with role, the only account that the token shows.',
    }),
    role: option({
      type: oneOf(ROLES),
      unset: 'a token for an agent',
      help: 'Makes a token for the API (culvert status, dashboard): viewer reads, operator also drains and kicks, admin does everything.',
    }),
    subject: option({
      type: text('<name>', 'a name of up to 128 characters', /^.{1,128}$/),
      unset: 'no name',
      help: 'With role: who the token is for, as logs tell it.',
    }),
    expires: option({ type: duration('1s', '3650d'), default: '30d', help: 'Time until the token expires.' }),
    names: option({
      type: listOf(tunnelNamePattern(), '<name,…>'),
      unset: 'any subdomain, no custom domain',
      help: 'The only tunnel names that the agent may register; dev-* allows every name that starts so. A custom domain must be listed.',
    }),
    'max-tunnels': option({
      type: integer(1, 1_000_000),
      unset: "the core's limit",
      help: 'Tunnel names that the account may have.',
    }),
    'max-connections': option({
      type: integer(1, 1_000_000),
      unset: "the core's limit",
      help: 'Agent sessions that the account may have.',
    }),
    secret: option({
      type: secretText(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
      secret: true,
      unset: 'TUNNEL_JWT_SECRET',
      help: "The core's jwt-secret. Other users of the machine can see it as a flag.",
    }),
    'secret-file': option({
      type: secretFile(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
      unset: 'TUNNEL_JWT_SECRET_FILE',
      help: "The core's jwt-secret-file.",
    }),
    issuer: option({
      type: text('<issuer>', 'an issuer'),
      unset: 'TUNNEL_JWT_ISSUER',
      help: 'The iss claim, for a core with jwt-issuer.',
    }),
    audience: option({
      type: text('<audience>', 'an audience'),
      unset: 'TUNNEL_JWT_AUDIENCE',
      help: 'The aud claim, for a core with jwt-audience.',
    }),
  },
  checks: [
    {
      keys: ['role', 'agent-id', 'account-id', 'names', 'max-tunnels', 'max-connections', 'subject', 'audience'],
      problem: (values, name) => {
        if (values.role === undefined) {
          if (values.agentId === undefined) return 'agent-id is required: give --agent-id <id>, or --role for the API';
          if (values.accountId === undefined) return 'account-id is required: give --account-id <id>';
          if (values.subject !== undefined) return `${name('subject')} has an effect only with --role`;
          return values.audience === API_AUDIENCE
            ? `${name('audience')}: ${API_AUDIENCE} is that of the API`
            : undefined;
        }
        const { agentId, names, maxTunnels, maxConnections } = values;
        const forAgents = { 'agent-id': agentId, names, 'max-tunnels': maxTunnels, 'max-connections': maxConnections };
        const useless = FOR_AGENTS.find((key) => forAgents[key] !== undefined);
        return useless === undefined ? undefined : `${name(useless)} is for tokens of agents: leave it out with --role`;
      },
    },
    {
      keys: ['secret', 'secret-file'],
      problem: ({ secret, secretFile }, name) => {
        if (secret === undefined && secretFile === undefined) {
          return 'no key to sign with: give --secret-file, --secret, TUNNEL_JWT_SECRET or TUNNEL_JWT_SECRET_FILE';
        }
        return secret !== undefined && secretFile !== undefined
          ? `${name('secret')} and ${name('secret-file')} exclude each other: keep one`
          : undefined;
      },
    },
  ],
});

/**
 * A JWT signed with HS256. For an agent: `agent_id`, `account_id`, `iat`, `exp`, and where given `names`, `max_tunnels`,
 * `max_connections`, `iss`, `aud`. For the API: `role`, `aud`, `iat`, `exp`, and where given `account_id`, `sub`, `iss`.
 * @param now milliseconds since the Unix epoch.
 * @throws ConfigError `invalid_config`.
 */
export async function createToken(
  flags: Readonly<Record<string, unknown>>,
  env: Environment,
  now = Date.now(),
): Promise<string> {
  const values = load(TOKEN_SCHEMA, { flags, fallbacks: [environmentFallback(flags, env)] });
  const issuedAt = Math.floor(now / 1000);
  const jwt = new SignJWT({
    ...(values.role === undefined ? {} : { role: values.role }),
    ...(values.agentId === undefined ? {} : { agent_id: values.agentId }),
    ...(values.accountId === undefined ? {} : { account_id: values.accountId }),
    ...(values.names === undefined ? {} : { names: [...values.names] }),
    ...(values.maxTunnels === undefined ? {} : { max_tunnels: values.maxTunnels }),
    ...(values.maxConnections === undefined ? {} : { max_connections: values.maxConnections }),
  })
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + Math.ceil(values.expires / 1000));
  if (values.issuer !== undefined) jwt.setIssuer(values.issuer);
  if (values.subject !== undefined) jwt.setSubject(values.subject);
  // The variable with the agents' audience may be set for the core beside this: a token for the API has its own.
  const audience = values.role === undefined ? values.audience : API_AUDIENCE;
  if (audience !== undefined) jwt.setAudience(audience);
  return jwt.sign(new TextEncoder().encode(values.secret ?? values.secretFile?.content));
}

/** The variables of the core that say the same. A key given as a flag stands for both ways to give one. */
function environmentFallback(flags: Readonly<Record<string, unknown>>, env: Environment) {
  const keyGiven = 'secret' in flags || 'secret-file' in flags;
  const { TUNNEL_JWT_SECRET, TUNNEL_JWT_SECRET_FILE, TUNNEL_JWT_ISSUER, TUNNEL_JWT_AUDIENCE } = env;
  return {
    label: 'the environment (TUNNEL_JWT_…)',
    values: {
      secret: keyGiven ? undefined : TUNNEL_JWT_SECRET || undefined,
      'secret-file': keyGiven ? undefined : TUNNEL_JWT_SECRET_FILE || undefined,
      issuer: TUNNEL_JWT_ISSUER || undefined,
      audience: TUNNEL_JWT_AUDIENCE || undefined,
    },
  };
}
