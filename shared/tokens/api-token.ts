import { z } from 'zod';
import type { Principal } from '../control/principal.ts';
import { ROLES } from '../control/principal.ts';
import { CulvertError } from '../errors/codes.ts';
import { API_AUDIENCE, expiryClaim, identifierClaim } from './claims.ts';
import { createJwtVerifier, type JwtOptions, parseClaims, type TokenKeys } from './jwt.ts';

const Claims = z.object({
  role: z.enum(ROLES, `must be one of ${ROLES.join(', ')}`),
  exp: expiryClaim,
  account_id: identifierClaim.optional(),
  sub: z.string('is not a string').min(1, 'is empty').max(128, 'is longer than 128 characters').optional(),
  jti: z.string('is not a string').min(1, 'is empty').max(128, 'is longer than 128 characters').optional(),
  iat: z.number('is not a number').optional(),
});

/**
 * Verifies tokens for the API: signed like those of agents, but with the audience `culvert-api`, a `role`, and without an
 * `agent_id`, so that neither kind passes for the other whatever else is in it.
 * @throws CulvertError `invalid_config` for a secret that is too short or a URL that is not http(s). The result throws as
 * VerifyJwt does.
 */
export function createApiTokenVerifier(
  keys: TokenKeys,
  options: Omit<JwtOptions, 'audience'> = {},
): (token: string) => Promise<Principal> {
  const verify = createJwtVerifier(keys, { ...options, audience: API_AUDIENCE });
  return async (token) => {
    const payload = await verify(token);
    if ('agent_id' in payload) throw new CulvertError('invalid_token', 'the token is for an agent, not for the API');
    const { role, exp, account_id, sub, jti, iat } = parseClaims(Claims, payload);
    return {
      name: sub ?? account_id ?? role,
      role,
      accountId: account_id,
      expiresAt: Math.floor(exp * 1000),
      ...(jti === undefined ? {} : { tokenId: jti }),
      ...(iat === undefined ? {} : { issuedAt: Math.floor(iat * 1000) }),
    };
  };
}
