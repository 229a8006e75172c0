import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { describe, type TestContext, test } from 'node:test';
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from 'jose';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import { MAX_TOKEN_BYTES } from '../../../shared/tokens/jwt.ts';
import { createTokenVerifier, type Identity, isNameAllowed } from './token-verifier.ts';

const SECRET = 'test-secret-with-at-least-32-bytes!';
const KEY = new TextEncoder().encode(SECRET);
const now = () => Math.floor(Date.now() / 1000);

function claims(overrides: JWTPayload = {}): JWTPayload {
  return { agent_id: 'agent-1', account_id: 'acme', exp: now() + 60, ...overrides };
}

function signed(payload: JWTPayload, key: Uint8Array = KEY): Promise<string> {
  return new SignJWT(payload).setProtectedHeader({ alg: 'HS256' }).sign(key);
}

function base64url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

/** The message of the refusal, after checking its code and that it holds no part of the token. */
async function refusal(verifying: Promise<unknown>, code: ErrorCode = 'invalid_token', token = ''): Promise<string> {
  const error = await verifying.then(
    () => assert.fail('the token was accepted'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof CulvertError, String(error));
  assert.equal(error.code, code, error.message);
  if (code === 'invalid_token') assert.equal(error.cause, undefined);
  for (const part of [...token.split('.'), SECRET]) {
    if (part.length > 8) assert.ok(!error.message.includes(part), error.message);
  }
  return error.message;
}

/** A key set endpoint whose answer the test can change; `hits` counts what was asked of it. */
async function keyServer(t: TestContext, answer: RequestListener) {
  const state = { answer, hits: 0, url: '' };
  const server = createServer((request, response) => {
    state.hits += 1;
    state.answer(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  state.url = `http://127.0.0.1:${address.port}/jwks.json`;
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return state;
}

function json(value: unknown): RequestListener {
  return (_request, response) => {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(value));
  };
}

describe('a token signed with the secret', () => {
  const verifier = createTokenVerifier({ secret: SECRET });

  test('is refused when it is for the API, whatever else it says', async () => {
    for (const aud of ['culvert-api', ['agents', 'culvert-api']]) {
      const token = await signed(claims({ aud, role: 'admin' }));
      assert.match(await refusal(createTokenVerifier({ secret: SECRET }).verify(token)), /is for the API/);
    }
    const named = createTokenVerifier({ secret: SECRET }, { audience: 'agents' });
    await refusal(named.verify(await signed(claims({ aud: ['agents', 'culvert-api'] }))));
  });

  test('tells who the agent is and what it may do', async () => {
    const exp = now() + 60;
    assert.deepEqual(await verifier.verify(await signed(claims({ exp, extra: { any: 'thing' } }))), {
      agentId: 'agent-1',
      accountId: 'acme',
      expiresAt: exp * 1000,
    });
    const limits = { exp, names: ['Web', 'dev-*'], max_tunnels: 3, max_connections: 0 };
    assert.deepEqual(await verifier.verify(await signed(claims(limits))), {
      agentId: 'agent-1',
      accountId: 'acme',
      expiresAt: exp * 1000,
      names: ['web', 'dev-*'],
      maxTunnels: 3,
      maxConnections: 0,
    });
  });

  test('may be given as bytes', async () => {
    const secret = randomBytes(32);
    const identity = await createTokenVerifier({ secret }).verify(await signed(claims(), secret));
    assert.equal(identity.agentId, 'agent-1');
  });

  test('is refused when it expired, with 5 s of tolerance by default', async () => {
    await verifier.verify(await signed(claims({ exp: now() - 2 })));
    const token = await signed(claims({ exp: now() - 10 }));
    assert.match(await refusal(verifier.verify(token), 'invalid_token', token), /has expired/);
    await createTokenVerifier({ secret: SECRET }, { clockTolerance: 20_000 }).verify(token);
    const strict = createTokenVerifier({ secret: SECRET }, { clockTolerance: 0 });
    assert.match(await refusal(strict.verify(await signed(claims({ exp: now() - 2 })))), /has expired/);
    assert.match(await refusal(verifier.verify(await signed(claims({ nbf: now() + 30 })))), /not valid yet/);
  });

  test('is refused when its signature is wrong', async () => {
    const other = await signed(claims(), randomBytes(32));
    assert.match(await refusal(verifier.verify(other), 'invalid_token', other), /signature of the token is wrong/);
    const [header, , signature] = (await signed(claims())).split('.');
    const changed = `${header}.${base64url(claims({ account_id: 'evil' }))}.${signature}`;
    assert.match(await refusal(verifier.verify(changed), 'invalid_token', changed), /signature of the token is wrong/);
  });

  test('is refused without a claim that is needed or with one of the wrong shape', async () => {
    for (const [name, value, message] of [
      ['exp', undefined, /claim "exp" is missing/],
      ['exp', 1e300, /claim "exp" is too large/],
      ['agent_id', undefined, /claim "agent_id" is missing/],
      ['account_id', undefined, /claim "account_id" is missing/],
      ['agent_id', 7, /claim "agent_id" is missing or not a string/],
      ['agent_id', '', /claim "agent_id" must be 1 to 128/],
      ['agent_id', 'a/b', /claim "agent_id" must be 1 to 128/],
      ['agent_id', 'a\nb', /claim "agent_id" must be 1 to 128/],
      ['account_id', 'a'.repeat(129), /claim "account_id" must be 1 to 128/],
      ['names', 'web', /claim "names" is not a list/],
      ['names', ['ok', 'a*b'], /claim "names" has an entry/],
      ['names', [''], /claim "names" has an entry/],
      ['max_tunnels', -1, /claim "max_tunnels" is negative/],
      ['max_tunnels', 1.5, /claim "max_tunnels" is not a whole number/],
      ['max_connections', '3', /claim "max_connections" is not a whole number/],
    ] as const) {
      const token = await signed(claims({ [name]: value }));
      assert.match(await refusal(verifier.verify(token), 'invalid_token', token), message);
    }
    const longest = 'a'.repeat(128);
    assert.equal((await verifier.verify(await signed(claims({ agent_id: longest })))).agentId, longest);
  });

  test('is refused when it is unsigned, not a JWT, or too long', async () => {
    const unsigned = `${base64url({ alg: 'none' })}.${base64url(claims())}.`;
    assert.match(await refusal(verifier.verify(unsigned), 'invalid_token', unsigned), /not accepted here/);
    assert.match(await refusal(verifier.verify('')), /no token/);
    for (const junk of ['x', 'a.b.c', '..', 'é.é.é', `${base64url({ alg: 'HS256' })}.${base64url(1)}.x`]) {
      await refusal(verifier.verify(junk), 'invalid_token', junk);
    }
    const long = await signed(claims({ pad: 'x'.repeat(MAX_TOKEN_BYTES) }));
    assert.match(await refusal(verifier.verify(long), 'invalid_token', long), /longer than 8192 bytes/);
  });

  test('must name the issuer and the audience that are expected', async () => {
    const picky = createTokenVerifier({ secret: SECRET }, { issuer: 'idp', audience: 'culvert' });
    await picky.verify(await signed(claims({ iss: 'idp', aud: ['other', 'culvert'] })));
    assert.match(await refusal(picky.verify(await signed(claims({ aud: 'culvert' })))), /claim "iss" is missing/);
    const other = await signed(claims({ iss: 'idp', aud: 'other' }));
    assert.match(await refusal(picky.verify(other)), /claim "aud" is not the expected one/);
  });

  test('cannot be made with a short secret', () => {
    const isConfigError = (error: unknown) => error instanceof CulvertError && error.code === 'invalid_config';
    assert.throws(() => createTokenVerifier({ secret: 'x'.repeat(31) }), isConfigError);
    assert.throws(() => createTokenVerifier({ jwksUrl: 'file:///etc/keys' }), isConfigError);
    assert.throws(() => createTokenVerifier({ jwksUrl: 'keys' }), isConfigError);
  });
});

describe('a token signed with a key of the key set', () => {
  for (const alg of ['RS256', 'PS256', 'ES256', 'EdDSA']) {
    test(`is accepted with ${alg}`, async (t) => {
      const { publicKey, privateKey } = await generateKeyPair(alg);
      const keys = await keyServer(t, json({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg }] }));
      const verifier = createTokenVerifier({ jwksUrl: keys.url });
      const token = await new SignJWT(claims()).setProtectedHeader({ alg, kid: 'k' }).sign(privateKey);
      assert.equal((await verifier.verify(token)).agentId, 'agent-1');
      assert.equal((await verifier.verify(token)).agentId, 'agent-1');
      assert.equal(keys.hits, 1);
    });
  }

  test('cannot be forged with the public key as an HMAC secret', async (t) => {
    const { publicKey } = await generateKeyPair('RS256', { extractable: true });
    const keys = await keyServer(t, json({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k' }] }));
    const verifier = createTokenVerifier({ jwksUrl: keys.url });
    const body = `${base64url({ alg: 'HS256', kid: 'k' })}.${base64url(claims())}`;
    const pem = await exportSPKI(publicKey);
    const forged = `${body}.${createHmac('sha256', pem).update(body).digest('base64url')}`;
    assert.match(await refusal(verifier.verify(forged), 'invalid_token', forged), /not accepted here/);
    assert.equal(keys.hits, 0);
  });

  test('is not accepted with a symmetric key of the set, nor with an algorithm outside the list', async (t) => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const keys = await keyServer(t, json({ keys: [{ kty: 'oct', k: Buffer.from(KEY).toString('base64url') }] }));
    const verifier = createTokenVerifier({ jwksUrl: keys.url });
    assert.match(await refusal(verifier.verify(await signed(claims()))), /not accepted here/);
    const rs512 = await new SignJWT(claims()).setProtectedHeader({ alg: 'RS512' }).sign(privateKey);
    assert.match(await refusal(verifier.verify(rs512)), /not accepted here/);
  });

  test('is refused when the set has no such key or cannot tell which', async (t) => {
    const mine = await generateKeyPair('ES256');
    const other = await generateKeyPair('ES256');
    const listed = await Promise.all([mine, other].map(async ({ publicKey }) => exportJWK(publicKey)));
    const keys = await keyServer(t, json({ keys: listed.map((jwk, i) => ({ ...jwk, kid: `k${i}` })) }));
    const token = (kid?: string) => {
      return new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', ...(kid ? { kid } : {}) }).sign(mine.privateKey);
    };
    await createTokenVerifier({ jwksUrl: keys.url }).verify(await token('k0'));
    const wrong = await refusal(createTokenVerifier({ jwksUrl: keys.url }).verify(await token('k1')));
    assert.match(wrong, /signature/);
    const none = await refusal(createTokenVerifier({ jwksUrl: keys.url }).verify(await token('k2')));
    assert.match(none, /no key for the token/);
    assert.match(await refusal(createTokenVerifier({ jwksUrl: keys.url }).verify(await token())), /"kid"/);
  });

  test('is neither accepted nor refused for good while the key set cannot be fetched', async (t) => {
    const { publicKey, privateKey } = await generateKeyPair('ES256');
    const keys = await keyServer(t, (_request, response) => response.writeHead(500).end());
    const verifier = createTokenVerifier({ jwksUrl: keys.url });
    const token = await new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', kid: 'k' }).sign(privateKey);
    for (const answer of [keys.answer, json('nonsense'), json({ keys: 7 })]) {
      keys.answer = answer;
      await refusal(verifier.verify(token), 'registry_unavailable', token);
    }
    const error = await verifier.verify(token).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof CulvertError && error.retryable);
    keys.answer = json({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k' }] });
    assert.equal((await verifier.verify(token)).agentId, 'agent-1');

    const nobody = createTokenVerifier({ jwksUrl: 'http://127.0.0.1:1/' });
    await refusal(nobody.verify(token), 'registry_unavailable', token);
  });

  test('with a key id that is not in a fresh set may be tried again, and does not make the issuer work', async (t) => {
    const { publicKey, privateKey } = await generateKeyPair('ES256');
    const keys = await keyServer(t, json({ keys: [{ ...(await exportJWK(publicKey)), kid: 'old' }] }));
    const verifier = createTokenVerifier({ jwksUrl: keys.url });
    const token = (kid: string) => new SignJWT(claims()).setProtectedHeader({ alg: 'ES256', kid }).sign(privateKey);
    await verifier.verify(await token('old'));
    for (let i = 0; i < 20; i += 1) {
      assert.match(
        await refusal(verifier.verify(await token(`new-${i}`)), 'registry_unavailable'),
        /not have the key yet/,
      );
    }
    assert.equal(keys.hits, 1);
  });
});

describe('the names of a token', () => {
  const identity = (names?: string[]): Identity => ({
    agentId: 'a',
    accountId: 'b',
    expiresAt: 0,
    ...(names ? { names } : {}),
  });

  test('allow every subdomain but no custom domain when the token has none, and nothing when the list is empty', () => {
    assert.equal(isNameAllowed(identity(), 'anything'), true);
    assert.equal(isNameAllowed(identity(), 'anything.example'), false);
    assert.equal(isNameAllowed(identity([]), 'web'), false);
  });

  test('allow themselves and what a wildcard at the end stands for, within one label', () => {
    const some = identity(['web', 'dev-*', 'app.example.com', 'x.*']);
    for (const name of ['web', 'dev-', 'dev-7', 'app.example.com', 'x.example'])
      assert.ok(isNameAllowed(some, name), name);
    for (const name of ['web2', 'we', 'dev', 'xdev-1', 'dev-7.evil.com', 'b.app.example.com', 'x.a.b', '']) {
      assert.ok(!isNameAllowed(some, name), name);
    }
    assert.ok(isNameAllowed(identity(['*']), 'any'));
    assert.ok(!isNameAllowed(identity(['*']), 'victim.com'));
  });
});
