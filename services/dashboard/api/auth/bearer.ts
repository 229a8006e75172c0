import type { Principal } from '../../../../shared/control/principal.ts';
import type { Authenticator } from './authorize.ts';

/** Tokens in `Authorization: Bearer …` (RFC 6750 section 2.1). @param verify throws CulvertError for a token that is not good */
export function bearerTokens(verify: (token: string) => Promise<Principal>): Authenticator {
  return ({ headers }) => {
    const token = /^bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    return token === undefined ? undefined : verify(token);
  };
}
