import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type JWTPayload, SignJWT } from 'jose';
import { CulvertError } from '../errors/codes.ts';
import { createApiTokenVerifier } from './api-token.ts';

const SECRET = 'test-secret-with-at-least-32-bytes!';
const verify = createApiTokenVerifier({ secret: SECRET }, { issuer: 'https://issuer.example' });
const now = Math.floor(Date.now() / 1000);

function signed(claims: JWTPayload, secret = SECRET): Promise<string> {
  return new SignJWT({ iss: 'https://issuer.example', aud: 'culvert-api', role: 'viewer', exp: now + 60, ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .sign(new TextEncoder().encode(secret));
}

describe('a token for the API', () => {
  test('tells who asks, with which role, for which account and until when', async () => {
    assert.deepEqual(await verify(await signed({ role: 'admin' })), {
      ...{ name: 'admin', role: 'admin', accountId: undefined, expiresAt: (now + 60) * 1000 },
    });
    const full = { role: 'operator', account_id: 'acme', sub: 'Ann', jti: 'token-1', iat: now };
    assert.deepEqual(await verify(await signed({ ...full, aud: ['other', 'culvert-api'] })), {
      ...{ name: 'Ann', role: 'operator', accountId: 'acme', expiresAt: (now + 60) * 1000 },
      ...{ tokenId: 'token-1', issuedAt: now * 1000 },
    });
  });

  for (const [what, claims, message] of [
    ['has no role', { role: undefined }, /claim "role" must be one of viewer, operator, admin/],
    ['has an unknown role', { role: 'root' }, /claim "role" must be one of/],
    ['has a list of roles', { role: ['admin'] }, /claim "role" must be one of/],
    ['never expires', { exp: undefined }, /claim "exp" is missing/],
    ['has expired', { exp: now - 60 }, /has expired/],
    ['is for another audience', { aud: 'agents' }, /claim "aud" is not the expected one/],
    ['is for no audience', { aud: undefined }, /claim "aud" is missing/],
    ['comes from another issuer', { iss: 'https://other.example' }, /claim "iss" is not the expected one/],
    ['is one of an agent', { agent_id: 'laptop', account_id: 'acme' }, /is for an agent/],
    ['has an account that is none', { account_id: 'a/b' }, /claim "account_id" must be/],
    ['has an empty account', { account_id: '' }, /claim "account_id" must be/],
  ] as const) {
    test(`is refused when it ${what}`, async () => {
      // SignJWT leaves out claims that are undefined.
      const token = await signed(claims as JWTPayload);
      await assert.rejects(verify(token), (error) => {
        assert.ok(error instanceof CulvertError);
        assert.equal(error.code, 'invalid_token');
        assert.match(error.message, message);
        return true;
      });
    });
  }

  test('is refused when another key signed it', async () => {
    const token = await signed({}, SECRET.toUpperCase());
    await assert.rejects(verify(token), { code: 'invalid_token' });
  });
});
