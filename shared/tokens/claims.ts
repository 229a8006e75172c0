import { z } from 'zod';

/** Claims that several kinds of tokens have. */

export const identifierClaim = z.string('is missing or not a string').regex(/^[A-Za-z0-9._:@-]{1,128}$/, {
  error: 'must be 1 to 128 letters, digits or . _ : @ -',
});

/** Up to the last moment that a Date can hold (ECMA-262 section 21.4.1.1), in seconds. */
export const expiryClaim = z.number('is missing or not a number').min(0, 'is negative').max(8.64e12, 'is too large');

/** The audience of tokens for the API. A token is for the API or for an agent, never for both: see both verifiers. */
export const API_AUDIENCE = 'culvert-api';

export function isForApi(audience: string | readonly string[] | undefined): boolean {
  return typeof audience === 'string' ? audience === API_AUDIENCE : (audience?.includes(API_AUDIENCE) ?? false);
}
