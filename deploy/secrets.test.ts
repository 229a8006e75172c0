import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { jwtVerify } from 'jose';

/** What deploy/secrets.sh makes is what the services take. */

const SCRIPT = fileURLToPath(new URL('secrets.sh', import.meta.url));
const DAY = 86_400_000;
const run = promisify(execFile);

const parent = mkdtempSync(join(tmpdir(), 'culvert-secrets-'));
after(() => rmSync(parent, { recursive: true }));
let count = 0;

interface Secrets {
  readonly directory: string;
  readonly path: (name: string) => string;
  readonly read: (name: string) => string;
  /** Runs the script. @returns what it says */
  readonly make: (domain?: string) => Promise<string>;
}

function secrets(): Secrets {
  const directory = join(parent, `secrets-${count++}`);
  const path = (name: string) => join(directory, name);
  return {
    directory,
    path,
    read: (name) => readFileSync(path(name), 'utf8'),
    make: async (domain = 'tunnel.example.com') => {
      const env = { PATH: process.env['PATH'], CULVERT_BASE_DOMAIN: domain };
      const { stdout, stderr } = await run('bash', [SCRIPT, directory], { env });
      assert.equal(stderr, '');
      return stdout;
    },
  };
}

function mode(path: string): string {
  return (statSync(path).mode & 0o777).toString(8);
}

test('the directory is for its owner alone, and only the key of the authority needs no container', async () => {
  const { make, directory, path } = secrets();
  assert.match(await make(), /^secrets: made jwt-secret /);
  assert.equal(mode(directory), '700');
  const modes = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isFile());
  assert.ok(modes.length > 8);
  for (const { name } of modes) assert.equal(mode(path(name)), name === 'ca.key' ? '400' : '444', name);
  assert.deepEqual(
    modes.filter(({ name }) => name.endsWith('.new')),
    [],
  );
});

test('a second run changes nothing', async () => {
  const { make, directory, read } = secrets();
  await make();
  const all = () =>
    readdirSync(directory)
      .filter((name) => name !== 'certificates')
      .map((name) => [name, read(name)]);
  const before = all();
  assert.match(await make(), /^secrets: all there in /);
  assert.deepEqual(all(), before);
});

test('two clusters share no secret', async () => {
  const [one, other] = [secrets(), secrets()];
  await Promise.all([one.make(), other.make()]);
  for (const name of ['jwt-secret', 'cluster-secret', 'redis-password']) {
    assert.ok(one.read(name).length >= 64, name);
    assert.notEqual(one.read(name), other.read(name), name);
  }
});

for (const [kind, secret] of [
  ['made by the script', undefined],
  ['of the user, above the block of SHA-256', 'a secret that is as long as somebody likes '.repeat(4)],
] as const) {
  test(`tokens are signed with jwt-secret ${kind}`, async () => {
    const { make, read, path } = secrets();
    await make();
    if (secret !== undefined) {
      rmSync(path('jwt-secret'));
      writeFileSync(path('jwt-secret'), `${secret}\n`);
      assert.match(await make(), /made agent-1\.token agent-2\.token in/);
    }
    const key = new TextEncoder().encode(read('jwt-secret').trim());
    for (const agent of ['agent-1', 'agent-2']) {
      const { payload } = await jwtVerify(read(`${agent}.token`), key, { algorithms: ['HS256'] });
      assert.deepEqual([payload['agent_id'], payload['account_id']], [agent, 'demo']);
      const life = (payload.exp ?? 0) * 1000 - Date.now();
      assert.ok(life > 396 * DAY && life <= 397 * DAY);
    }
  });
}

test('a token near its end is made anew', async () => {
  const { make, read, path } = secrets();
  await make();
  rmSync(path('agent-1.token'));
  writeFileSync(path('agent-1.token'), 'an old token');
  const old = new Date(Date.now() - 368 * DAY);
  utimesSync(path('jwt-secret'), old, old);
  utimesSync(path('agent-1.token'), old, old);
  assert.match(await make(), /made agent-1\.token in/);
  assert.match(read('agent-1.token'), /^ey/);
});

test('the certificate holds for the base domain and its subdomains, and is made anew for another domain', async () => {
  const { make, read } = secrets();
  for (const domain of ['tunnel.example.com', 'other.test']) {
    await make(domain);
    const certificate = new X509Certificate(read('agents.crt'));
    assert.ok(certificate.checkIssued(new X509Certificate(read('ca.crt'))));
    assert.ok(certificate.verify(new X509Certificate(read('ca.crt')).publicKey));
    for (const host of [domain, `core-1.${domain}`, 'haproxy']) assert.ok(certificate.checkHost(host), host);
    assert.equal(certificate.checkHost('example.org'), undefined);
    assert.equal(new X509Certificate(read('certificates/made-by-secrets.pem')).fingerprint, certificate.fingerprint);
  }
});

test("the user's own certificate for visitors takes the place of the one that was made", async () => {
  const { make, path, directory } = secrets();
  await make();
  writeFileSync(path('certificates/tunnel.pem'), 'a real one');
  await make();
  assert.deepEqual(readdirSync(join(directory, 'certificates')), ['tunnel.pem']);
});

test('a base domain that could break out of a configuration is refused', async () => {
  await assert.rejects(secrets().make('x,DNS:evil.test'), /is no domain name/);
});
