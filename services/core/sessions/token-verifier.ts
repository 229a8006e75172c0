import { createRemoteJWKSet, errors, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { z } from 'zod';
import { MIN_HS256_SECRET_BYTES } from '../../../shared/config/common-options.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';

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

/** Where the keys come from. The kind of key fixes the algorithms, so that a public key can never serve as a secret. */
export type TokenKeys =
  /** Shared secret, at least 32 bytes (RFC 7518 section 3.2); a string counts as UTF-8. HS256 only. */
  | { readonly secret: string | Uint8Array }
  /** JSON Web Key Set over https or http. RS256, PS256, ES256 and EdDSA only. */
  | { readonly jwksUrl: string | URL };

export interface TokenVerifierOptions {
  /** Required `iss`. Default: any or none. */
  readonly issuer?: string;
  /** Required `aud`, or one of its entries. Default: any or none. */
  readonly audience?: string;
  /** Difference between the clocks of issuer and node that is forgiven, milliseconds. Default 5000. */
  readonly clockTolerance?: number;
}

export interface TokenVerifier {
  /**
   * @throws CulvertError `invalid_token` when the token will never be accepted as it is; its message says why and never holds
   * the token. `registry_unavailable` (retryable) when the key set cannot be fetched now, which says nothing about the token.
   */
  verify(token: string): Promise<Identity>;
}

/** Longest token, bytes. Enough for a few hundred names; bounds the work before anything is known of the sender. */
export const MAX_TOKEN_BYTES = 8 * 1024;

const SECRET_ALGORITHMS = ['HS256'];
const PUBLIC_KEY_ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const JWKS_TIMEOUT = 5_000;
/** How long a key set is used without asking again, ms: the longest time for which a withdrawn key still counts. */
const JWKS_MAX_AGE = 10 * 60_000;
/** Shortest time between two fetches for key ids that are not in the set, ms, so that made-up ids cannot hammer the issuer. */
const JWKS_COOLDOWN = 10_000;

const id = z.string('is missing or not a string').regex(/^[A-Za-z0-9._:@-]{1,128}$/, {
  error: 'must be 1 to 128 letters, digits or . _ : @ -',
});
const count = z.int('is not a whole number').min(0, 'is negative').max(1_000_000, 'is above 1000000');

const Claims = z.object({
  agent_id: id,
  account_id: id,
  // Up to the last moment that a Date can hold (ECMA-262 section 21.4.1.1).
  exp: z.number('is missing or not a number').min(0, 'is negative').max(8.64e12, 'is too large'),
  names: z.array(z.string().regex(/^(?:[A-Za-z0-9.-]{1,253}\*?|\*)$/), 'is not a list of names').optional(),
  max_tunnels: count.optional(),
  max_connections: count.optional(),
});

/** @throws CulvertError `invalid_config` for a secret that is too short or a URL that is not http(s). */
export function createTokenVerifier(keys: TokenKeys, options: TokenVerifierOptions = {}): TokenVerifier {
  const isSecret = 'secret' in keys;
  const algorithms = isSecret ? SECRET_ALGORITHMS : PUBLIC_KEY_ALGORITHMS;
  const key = isSecret ? secretKey(keys.secret) : remoteKeys(keys.jwksUrl);
  const jwtOptions = {
    algorithms,
    clockTolerance: (options.clockTolerance ?? 5_000) / 1000,
    ...(options.issuer === undefined ? {} : { issuer: options.issuer }),
    ...(options.audience === undefined ? {} : { audience: options.audience }),
  };
  return {
    async verify(token) {
      if (token === '') throw new CulvertError('invalid_token', 'no token was given');
      if (Buffer.byteLength(token) > MAX_TOKEN_BYTES) {
        throw new CulvertError('invalid_token', `the token is longer than ${MAX_TOKEN_BYTES} bytes`);
      }
      try {
        const { payload } = await jwtVerify(token, key, jwtOptions);
        return toIdentity(payload);
      } catch (error) {
        throw error instanceof CulvertError ? error : refusal(error, algorithms);
      }
    },
  };
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

function secretKey(secret: string | Uint8Array): JWTVerifyGetKey {
  const bytes = typeof secret === 'string' ? new TextEncoder().encode(secret) : secret;
  if (bytes.byteLength < MIN_HS256_SECRET_BYTES) {
    throw new CulvertError('invalid_config', `the JWT secret must have at least ${MIN_HS256_SECRET_BYTES} bytes`);
  }
  return async () => bytes;
}

function remoteKeys(jwksUrl: string | URL): JWTVerifyGetKey {
  const url = URL.parse(jwksUrl);
  if (url === null || !/^https?:$/.test(url.protocol)) {
    throw new CulvertError('invalid_config', 'the JWKS URL must start with https:// or http://');
  }
  const keySet = createRemoteJWKSet(url, {
    timeoutDuration: JWKS_TIMEOUT,
    cooldownDuration: JWKS_COOLDOWN,
    cacheMaxAge: JWKS_MAX_AGE,
  });
  return async (header, token) => {
    const coolingDown = keySet.coolingDown;
    try {
      return await keySet(header, token);
    } catch (error) {
      if (error instanceof errors.JWKSMultipleMatchingKeys) throw error;
      // While cooling down the set was not asked again, so the key may be a new one: the agent must not give up on its token.
      if (error instanceof errors.JWKSNoMatchingKey && !coolingDown) throw error;
      const why = error instanceof errors.JWKSNoMatchingKey ? 'does not have the key yet' : 'cannot be fetched or read';
      throw new CulvertError('registry_unavailable', `the key set that verifies tokens ${why}; try again`, {
        cause: error,
      });
    }
  };
}

function toIdentity(payload: unknown): Identity {
  const parsed = Claims.safeParse(payload);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    // A long path would be an entry of `names`: the list is at fault as a whole.
    const claim = String(issue?.path[0]);
    const problem = issue?.path.length === 1 ? issue.message : 'has an entry that is not a name';
    throw new CulvertError('invalid_token', `the token's claim "${claim}" ${problem}`);
  }
  const { agent_id, account_id, exp, names, max_tunnels, max_connections } = parsed.data;
  return {
    agentId: agent_id,
    accountId: account_id,
    expiresAt: Math.floor(exp * 1000),
    ...(names === undefined ? {} : { names: names.map((name) => name.toLowerCase()) }),
    ...(max_tunnels === undefined ? {} : { maxTunnels: max_tunnels }),
    ...(max_connections === undefined ? {} : { maxConnections: max_connections }),
  };
}

/** No cause is attached: jose's errors carry the payload, which must not reach a log. */
function refusal(error: unknown, algorithms: readonly string[]): CulvertError {
  return new CulvertError('invalid_token', reason(error, algorithms));
}

function reason(error: unknown, algorithms: readonly string[]): string {
  if (error instanceof errors.JWTExpired) return 'the token has expired';
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'the signature of the token is wrong';
  if (error instanceof errors.JOSEAlgNotAllowed) {
    return `the token is signed with an algorithm that is not accepted here (accepted: ${algorithms.join(', ')})`;
  }
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === 'missing') return `the token's claim "${error.claim}" is missing`;
    if (error.claim === 'nbf') return 'the token is not valid yet';
    return `the token's claim "${error.claim}" is not the expected one`;
  }
  if (error instanceof errors.JWKSNoMatchingKey) return 'the key set has no key for the token';
  if (error instanceof errors.JWKSMultipleMatchingKeys) {
    return 'several keys of the key set fit the token: it needs a "kid" in its header';
  }
  return 'the token is not a signed JWT';
}
