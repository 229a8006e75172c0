import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeProtectedHeader, jwtVerify } from 'jose';
import { ConfigError } from '../../shared/config/load.ts';
import { createToken } from './token.ts';

const SECRET = '0123456789abcdef0123456789abcdef';
const WHO = { 'agent-id': 'a1', 'account-id': 'acme' };

const verify = async (token: string, secret = SECRET) => jwtVerify(token, new TextEncoder().encode(secret));

test('a token holds agent, account and expiry, signed with HS256', async () => {
  const now = Math.floor(Date.now() / 1000) * 1000;
  const token = await createToken({ ...WHO, secret: SECRET, expires: '24h' }, {}, now);
  assert.deepEqual(decodeProtectedHeader(token), { alg: 'HS256', typ: 'JWT' });
  const { payload } = await verify(token);
  assert.deepEqual(payload, { agent_id: 'a1', account_id: 'acme', iat: now / 1000, exp: now / 1000 + 86_400 });
  await assert.rejects(verify(token, SECRET.toUpperCase()), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' });
});

test('a token lasts 30 days unless told otherwise', async () => {
  const { payload } = await verify(await createToken({ ...WHO, secret: SECRET }, {}));
  assert.equal(Number(payload.exp) - Number(payload.iat), 30 * 86_400);
});

test('a token carries allowed names and limits', async () => {
  const flags = { ...WHO, secret: SECRET, names: 'API,web', 'max-tunnels': '3', 'max-connections': '2' };
  const { names, max_tunnels, max_connections } = (await verify(await createToken(flags, {}))).payload;
  assert.deepEqual([names, max_tunnels, max_connections], [['api', 'web'], 3, 2]);
});

test("the core's own variables give key, issuer and audience, and a flag for the key wins", async () => {
  const other = SECRET.toUpperCase();
  const env = {
    TUNNEL_JWT_SECRET: other,
    TUNNEL_JWT_ISSUER: 'iss',
    TUNNEL_JWT_AUDIENCE: 'aud',
    TUNNEL_PUBLIC_ADDR: ':1',
  };
  const { payload } = await verify(await createToken(WHO, env), other);
  assert.deepEqual([payload.iss, payload.aud], ['iss', 'aud']);
  await verify(await createToken({ ...WHO, secret: SECRET }, env));
});

test('a token for the API has a role and an audience of its own, and perhaps an account and a name', async () => {
  const env = { TUNNEL_JWT_SECRET: SECRET, TUNNEL_JWT_AUDIENCE: 'agents' };
  const plain = (await verify(await createToken({ role: 'viewer' }, env))).payload;
  assert.deepEqual([plain['role'], plain.aud, plain['account_id']], ['viewer', 'culvert-api', undefined]);
  const flags = { role: 'operator', 'account-id': 'acme', subject: 'Ann' };
  const { payload } = await verify(await createToken(flags, env));
  assert.deepEqual([payload['role'], payload['account_id'], payload.sub], ['operator', 'acme', 'Ann']);
  assert.equal('agent_id' in payload, false);
});

for (const [name, flags, env, expected] of [
  ['without a key', WHO, {}, /^no key to sign with: give --secret-file/],
  ['with an empty key in the environment', WHO, { TUNNEL_JWT_SECRET: '' }, /^no key to sign with/],
  ['with a short key', { ...WHO, secret: 'hunter2' }, {}, /^--secret: has 7 bytes/],
  ['for nobody', { 'account-id': 'acme', secret: SECRET }, {}, /^agent-id is required: give --agent-id <id>/],
  ['for an agent of no account', { 'agent-id': 'a1', secret: SECRET }, {}, /^account-id is required/],
  ['for an agent and the API at once', { ...WHO, role: 'viewer', secret: SECRET }, {}, /^--agent-id is for tokens of/],
  ['for an unknown role', { role: 'root', secret: SECRET }, {}, /^--role: "root" is not one of viewer, operator/],
  ['for an agent with the audience of the API', { ...WHO, audience: 'culvert-api', secret: SECRET }, {}, /^--audience/],
  ['for an agent with a name for people', { ...WHO, subject: 'Ann', secret: SECRET }, {}, /only with --role$/],
  [
    'for an id that would read as a path',
    { ...WHO, 'agent-id': 'a/b', secret: SECRET },
    {},
    /^--agent-id: "a\/b" is not an id/,
  ],
  ['that never lasts', { ...WHO, secret: SECRET, expires: '0s' }, {}, /^--expires: "0s" is not a duration from 1s/],
] as const) {
  test(`no token is made ${name}`, async () => {
    await assert.rejects(createToken(flags, env), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.match(error.problems.join('\n'), expected);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
  });
}
