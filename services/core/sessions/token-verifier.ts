import type { JWTPayload } from 'jose';
import { z } from 'zod';
import { CulvertError } from '../../../shared/errors/codes.ts';
import { expiryClaim, identifierClaim, isForApi } from '../../../shared/tokens/claims.ts';
import { createJwtVerifier, type JwtOptions, parseClaims, type TokenKeys } from '../../../shared/tokens/jwt.ts';

/** Who an agent is, as its token says. */
export interface Identity {
  readonly agentId: string;
  readonly accountId: string;
  /** Milliseconds since the Unix epoch. The session must be authenticated anew before. */
  readonly expiresAt: number;
  /** Patterns of the tunnel names that the token allows, see `isNameAllowed`; undefined allows every subdomain. */
  readonly names?: readonly string[];
  /** Tunnels that the account may have; undefined leaves it to the node's configuration. */
  readonly maxTunnels?: number;
  /** Agent connections that the account may have; undefined leaves it to the node's configuration. */
  readonly maxConnections?: number;
}

export interface TokenVerifier {
  /** @throws CulvertError as VerifyJwt */
  verify(token: string): Promise<Identity>;
}

const count = z.int('is not a whole number').min(0, 'is negative').max(1_000_000, 'is above 1000000');

const Claims = z.object({
  agent_id: identifierClaim,
  account_id: identifierClaim,
  exp: expiryClaim,
  names: z.array(z.string().regex(/^(?:[A-Za-z0-9.-]{1,253}\*?|\*)$/), 'is not a list of names').optional(),
  max_tunnels: count.optional(),
  max_connections: count.optional(),
});

/** @throws CulvertError `invalid_config` for a secret that is too short or a URL that is not http(s). */
export function createTokenVerifier(keys: TokenKeys, options: JwtOptions = {}): TokenVerifier {
  const verify = createJwtVerifier(keys, options);
  return { verify: async (token) => toIdentity(await verify(token)) };
}

/**
 * Whether the token allows a tunnel of this (normalised) name. A pattern is a name, or a beginning followed by `*`, which
 * stands for the rest of one label: `dev-*` allows `dev-7` but not `dev-7.example.com`, whose owner may be somebody else.
 * A custom domain must be listed: who signs the token vouches for its owner, and a token that says nothing proves nothing.
 */
export function isNameAllowed(identity: Identity, name: string): boolean {
  if (identity.names === undefined) return !name.includes('.');
  return identity.names.some((pattern) => {
    if (!pattern.endsWith('*')) return pattern === name;
    const beginning = pattern.slice(0, -1);
    return name.startsWith(beginning) && !name.includes('.', beginning.length);
  });
}

function toIdentity(payload: JWTPayload): Identity {
  if (isForApi(payload.aud)) throw new CulvertError('invalid_token', 'the token is for the API, not for an agent');
  const { agent_id, account_id, exp, names, max_tunnels, max_connections } = parseClaims(Claims, payload);
  return {
    agentId: agent_id,
    accountId: account_id,
    expiresAt: Math.floor(exp * 1000),
    ...(names === undefined ? {} : { names: names.map((name) => name.toLowerCase()) }),
    ...(max_tunnels === undefined ? {} : { maxTunnels: max_tunnels }),
    ...(max_connections === undefined ? {} : { maxConnections: max_connections }),
  };
}
