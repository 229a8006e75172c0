import { createRemoteJWKSet, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose';
import type { z } from 'zod';
import { MIN_HS256_SECRET_BYTES } from '../config/common-options.ts';
import { CulvertError } from '../errors/codes.ts';

/** Signed tokens (RFC 7519): signature, time, issuer and audience. What their other claims mean is for who asks. */

/** Where the keys come from. The kind of key fixes the algorithms, so that a public key can never serve as a secret. */
export type TokenKeys =
  /** Shared secret, at least 32 bytes (RFC 7518 section 3.2); a string counts as UTF-8. HS256 only. */
  | { readonly secret: string | Uint8Array }
  /** JSON Web Key Set over https or http. RS256, PS256, ES256 and EdDSA only. */
  | { readonly jwksUrl: string | URL };

export interface JwtOptions {
  /** Required `iss`. Default: any or none. */
  readonly issuer?: string;
  /** Required `aud`, or one of its entries. Default: any or none. */
  readonly audience?: string;
  /** Difference between the clocks of issuer and node that is forgiven, milliseconds. Default 5000. */
  readonly clockTolerance?: number;
}

/**
 * @throws CulvertError `invalid_token` when the token will never be accepted as it is; its message says why and never holds
 * the token. `registry_unavailable` (retryable) when the key set cannot be fetched now, which says nothing about the token.
 */
export type VerifyJwt = (token: string) => Promise<JWTPayload>;

/** Longest token, bytes. Enough for a few hundred names; bounds the work before anything is known of the sender. */
export const MAX_TOKEN_BYTES = 8 * 1024;

const SECRET_ALGORITHMS = ['HS256'];
const PUBLIC_KEY_ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const JWKS_TIMEOUT = 5_000;
/** How long a key set is used without asking again, ms: the longest time for which a withdrawn key still counts. */
const JWKS_MAX_AGE = 10 * 60_000;
/** Shortest time between two fetches for key ids that are not in the set, ms, so that made-up ids cannot hammer the issuer. */
const JWKS_COOLDOWN = 10_000;

/** @throws CulvertError `invalid_config` for a secret that is too short or a URL that is not http(s). */
export function createJwtVerifier(keys: TokenKeys, options: JwtOptions = {}): VerifyJwt {
  const isSecret = 'secret' in keys;
  const algorithms = isSecret ? SECRET_ALGORITHMS : PUBLIC_KEY_ALGORITHMS;
  const key = isSecret ? secretKey(keys.secret) : remoteKeys(keys.jwksUrl);
  const jwtOptions = {
    algorithms,
    clockTolerance: (options.clockTolerance ?? 5_000) / 1000,
    ...(options.issuer === undefined ? {} : { issuer: options.issuer }),
    ...(options.audience === undefined ? {} : { audience: options.audience }),
  };
  return async (token) => {
    if (token === '') throw new CulvertError('invalid_token', 'no token was given');
    if (Buffer.byteLength(token) > MAX_TOKEN_BYTES) {
      throw new CulvertError('invalid_token', `the token is longer than ${MAX_TOKEN_BYTES} bytes`);
    }
    try {
      return (await jwtVerify(token, key, jwtOptions)).payload;
    } catch (error) {
      throw error instanceof CulvertError ? error : refusal(error, algorithms);
    }
  };
}

/** @throws CulvertError `invalid_token` that names the first claim that is wrong */
export function parseClaims<T>(schema: z.ZodType<T>, payload: JWTPayload): T {
  const parsed = schema.safeParse(payload);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  // A long path would be an entry of `names`: the list is at fault as a whole.
  const claim = String(issue?.path[0]);
  const problem = issue?.path.length === 1 ? issue.message : 'has an entry that is not a name';
  throw new CulvertError('invalid_token', `the token's claim "${claim}" ${problem}`);
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
