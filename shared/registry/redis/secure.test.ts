import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createLogger } from '../../observability/logger.ts';
import { connect } from '../../redis/connection.ts';
import { until } from '../../testkit/eventually.ts';
import { freePort } from '../../testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { ensureServerCertificate } from '../../tls/certificates.ts';
import { claim, PLENTY, tunnel } from '../contract/support.contract.ts';
import type { NodeId } from '../registry.ts';
import { emptyButOpen, openRegistry, usable } from './support.contract.ts';

/** Redis with a certificate of a private authority, and one user. */
const silent = createLogger({ name: 'test', level: 'silent' });

let home: string;
let redis: RedisServer;
let tlsPort: number;
let ca: string;

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'culvert-secure-'));
  const made = await ensureServerCertificate(join(home, 'tls'), { hosts: ['localhost', '127.0.0.1'] });
  ca = readFileSync(made.caFile, 'utf8');
  const [cert, key] = [join(home, 'cert.pem'), join(home, 'key.pem')];
  writeFileSync(cert, made.cert);
  writeFileSync(key, made.key, { mode: 0o600 });
  tlsPort = await freePort();
  const tls = ['--tls-port', `${tlsPort}`, '--tls-cert-file', cert, '--tls-key-file', key, '--tls-auth-clients', 'no'];
  redis = await startRedis([...tls, '--tls-ca-cert-file', made.caFile]);
  await redis.client.call('ACL', 'SETUSER', 'culvert', 'on', '>p@ss/word', '~*', '&*', '+@all');
  await emptyButOpen([redis.client]);
  // The client of the test stays signed in as the default user; nobody else can.
  await redis.client.call('ACL', 'SETUSER', 'default', 'resetpass');
});
after(async () => {
  await redis.close();
  rmSync(home, { recursive: true, force: true });
});

for (const host of ['localhost', '127.0.0.1']) {
  test(`the registry works over TLS with user and password by ${host}`, async (t) => {
    const url = `rediss://culvert:p%40ss%2Fword@${host}:${tlsPort}`;
    const registry = await openRegistry(`by-${host}`, { kind: 'single', url, ca });
    t.after(() => registry.close());
    await usable(registry);
    const session = await registry.openSession(claim({ nodeId: `by-${host}` as NodeId, agentId: host }));
    const route = await registry.register(session, tunnel(`by-${host.replaceAll('.', '-')}`), PLENTY);
    assert.equal(route.endpoints[0]?.session.epoch, session.epoch);
  });
}

for (const [what, user, authority, cause] of [
  ['of an authority that is not known', 'culvert:p%40ss%2Fword@', false, /self-signed|unable to verify|certificate/],
  ['with a wrong password', 'culvert:wrong@', true, /WRONGPASS/],
  ['without a user', '', true, /NOAUTH/],
] as const) {
  test(`a server ${what} is not used, and the reason is told`, async (t) => {
    const url = `rediss://${user}127.0.0.1:${tlsPort}`;
    const link = connect({ kind: 'single', url, ...(authority ? { ca } : {}) }, 1000, silent);
    t.after(() => link.close());
    const reasons: string[] = [];
    link.commands.on('error', (error: Error) => reasons.push(error.message));
    await until('the reason is told', async () => {
      const answer = await link.commands.get('key').then(
        () => assert.fail('a command went through'),
        (error: Error) => error.message,
      );
      return [...reasons, answer].some((each) => cause.test(each));
    });
  });
}
