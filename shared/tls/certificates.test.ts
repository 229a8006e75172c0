import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { CulvertError } from '../errors/codes.ts';
import { ensureServerCertificate, loadCertificate, type ServerCertificate } from './certificates.ts';
import { createFile, replaceFile } from './key-pair-file.ts';

const DAY = 86_400_000;
const HOSTS = ['localhost', '*.tunnel.localhost', '127.0.0.1', '::1'];

function directory(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'culvert-tls-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function mode(path: string): number {
  return statSync(path).mode & 0o777;
}

async function refused(promise: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(error instanceof CulvertError, String(error));
    assert.equal(error.code, 'invalid_config');
    assert.match(error.message, message);
    return true;
  });
}

/** A TLS connection to a listener with this certificate, verified against `ca`. Resolves once the handshake is done. */
async function handshake(t: TestContext, served: ServerCertificate, servername: string, ca = served.ca): Promise<void> {
  const server = createServer({ cert: served.cert, key: served.key }, (socket) => socket.resume());
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const socket: TLSSocket = connect({ port, host: '127.0.0.1', servername, ca, rejectUnauthorized: true });
  t.after(() => {
    socket.destroy();
    server.close();
  });
  await once(socket, 'secureConnect');
  assert.equal(socket.authorized, true);
}

describe('the generated certificate', () => {
  test('is accepted by a TLS client that trusts the authority, for each of its hosts and no other', async (t) => {
    const made = await ensureServerCertificate(directory(t), { hosts: HOSTS });
    await handshake(t, made, 'localhost');
    await handshake(t, made, 'api.tunnel.localhost');
    await assert.rejects(handshake(t, made, 'example.com'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    const certificate = new X509Certificate(made.cert);
    assert.equal(certificate.checkIP('127.0.0.1'), '127.0.0.1');
    assert.ok(certificate.checkIP('::1') !== undefined);
    assert.equal(certificate.ca, false);
    assert.equal(made.expiresAt, certificate.validToDate.getTime());
    assert.ok(Math.abs(made.expiresAt - Date.now() - 365 * DAY) < DAY);
  });

  test('is refused by a TLS client that trusts another authority', async (t) => {
    const made = await ensureServerCertificate(directory(t), { hosts: HOSTS });
    const other = await ensureServerCertificate(directory(t), { hosts: HOSTS });
    await assert.rejects(handshake(t, made, 'localhost', other.ca), /certificate|signature/);
  });

  test('lies in files that only the owner can read, without leftovers', async (t) => {
    const dir = join(directory(t), 'deep', 'tls');
    const made = await ensureServerCertificate(dir, { hosts: HOSTS });
    assert.equal(mode(dir), 0o700);
    assert.deepEqual(readdirSync(dir).sort(), ['ca.crt', 'ca.pem', 'server.pem']);
    for (const file of readdirSync(dir)) assert.equal(mode(join(dir, file)), 0o600, file);
    assert.equal(readFileSync(made.caFile, 'utf8'), made.ca);
    assert.ok(!made.ca.includes('PRIVATE'));
    const authority = new X509Certificate(made.ca);
    assert.ok(authority.ca && authority.verify(authority.publicKey));
    assert.ok(Math.abs(authority.validToDate.getTime() - Date.now() - 3650 * DAY) < DAY);
    const fromFile = await loadCertificate(made.certFile, made.certFile);
    assert.deepEqual(fromFile, { cert: made.cert, key: made.key, expiresAt: made.expiresAt });
  });

  test('passes the checks of openssl', async (t) => {
    const made = await ensureServerCertificate(directory(t), { hosts: HOSTS });
    const arguments_ = ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', made.caFile, made.certFile];
    const { stdout } = await promisify(execFile)('openssl', arguments_);
    assert.match(stdout, /: OK/);
  });

  test('is kept from start to start', async (t) => {
    const dir = directory(t);
    const first = await ensureServerCertificate(dir, { hosts: HOSTS });
    const second = await ensureServerCertificate(dir, { hosts: [...HOSTS].reverse() });
    assert.deepEqual(second, first);
  });

  test('is renewed under the same authority when fewer than 30 days remain or the hosts differ', async (t) => {
    const dir = directory(t);
    const first = await ensureServerCertificate(dir, { hosts: HOSTS });
    const later = (days: number) => ({ hosts: HOSTS, clock: () => Date.now() + days * DAY });
    assert.equal((await ensureServerCertificate(dir, later(334))).cert, first.cert);
    const renewed = await ensureServerCertificate(dir, later(336));
    assert.notEqual(renewed.cert, first.cert);
    assert.equal(renewed.ca, first.ca);
    assert.ok(renewed.expiresAt > first.expiresAt);

    for (const hosts of [
      ['localhost'],
      [...HOSTS, 'example.org'],
      ['localhost', '*.tunnel.localhost', '127.0.0.1', '::2'],
    ]) {
      const changed = await ensureServerCertificate(dir, { hosts });
      assert.equal(changed.ca, first.ca);
      await handshake(t, changed, 'localhost');
      assert.equal(new X509Certificate(changed.cert).subjectAltName?.split(', ').length, hosts.length);
    }
  });

  test('never outlives its authority, and an expired authority is an error rather than a new one', async (t) => {
    const dir = directory(t);
    const { ca } = await ensureServerCertificate(dir, { hosts: HOSTS });
    const end = new X509Certificate(ca).validToDate.getTime();
    const last = await ensureServerCertificate(dir, { hosts: HOSTS, clock: () => end - DAY });
    assert.equal(last.expiresAt, end);
    const again = await ensureServerCertificate(dir, { hosts: HOSTS, clock: () => end - DAY });
    assert.equal(again.cert, last.cert);
    await refused(ensureServerCertificate(dir, { hosts: HOSTS, clock: () => end }), /ca\.pem expired on/);
  });

  test('is made anew when its file is damaged or of another authority', async (t) => {
    const dir = directory(t);
    const first = await ensureServerCertificate(dir, { hosts: HOSTS });
    writeFileSync(first.certFile, first.cert.slice(0, 200));
    await handshake(t, await ensureServerCertificate(dir, { hosts: HOSTS }), 'localhost');
    const foreign = await ensureServerCertificate(directory(t), { hosts: HOSTS });
    writeFileSync(first.certFile, readFileSync(foreign.certFile));
    const mended = await ensureServerCertificate(dir, { hosts: HOSTS });
    assert.equal(mended.ca, first.ca);
    await handshake(t, mended, 'localhost');
  });

  test('is not made when the authority is damaged, so that agents keep their trust', async (t) => {
    const dir = directory(t);
    await ensureServerCertificate(dir, { hosts: HOSTS });
    writeFileSync(join(dir, 'ca.pem'), 'rubbish');
    await refused(ensureServerCertificate(dir, { hosts: HOSTS }), /ca\.pem holds no PEM certificate/);
    assert.equal(readFileSync(join(dir, 'ca.pem'), 'utf8'), 'rubbish');
  });

  test('takes the rights of others from a directory that was there', async (t) => {
    const dir = directory(t);
    chmodSync(dir, 0o755);
    await ensureServerCertificate(dir, { hosts: HOSTS });
    assert.equal(mode(dir), 0o700);
  });

  test('of the authority is never overwritten by a process that comes second', async (t) => {
    const file = join(directory(t), 'ca.pem');
    await createFile(file, 'first');
    await createFile(file, 'second');
    assert.equal(readFileSync(file, 'utf8'), 'first');
    await replaceFile(file, 'third');
    assert.equal(readFileSync(file, 'utf8'), 'third');
  });

  test('comes from one authority when many ask for it at once', async (t) => {
    const dir = directory(t);
    const all = await Promise.all(Array.from({ length: 10 }, () => ensureServerCertificate(dir, { hosts: HOSTS })));
    assert.equal(new Set(all.map(({ ca }) => ca)).size, 1);
    assert.deepEqual(readdirSync(dir).sort(), ['ca.crt', 'ca.pem', 'server.pem']);
    for (const made of all) {
      assert.ok(new X509Certificate(made.cert).checkPrivateKey(createPrivateKey(made.key)));
      await handshake(t, made, 'localhost');
    }
    await loadCertificate(join(dir, 'server.pem'), join(dir, 'server.pem'));
  });

  test('is refused for hosts that no certificate can name, and in a directory that is none', async (t) => {
    const dir = directory(t);
    for (const host of ['', 'a b', 'a,DNS:evil', 'x/y', '-a', 'https://x', 'a:80', '*', 'é']) {
      await refused(ensureServerCertificate(dir, { hosts: [host] }), /neither a DNS name nor an IP address/);
    }
    await refused(ensureServerCertificate(dir, { hosts: [] }), /1 to 100 hosts/);
    assert.equal(existsSync(join(dir, 'ca.pem')), false);
    const file = join(dir, 'file');
    writeFileSync(file, '');
    await refused(ensureServerCertificate(file, { hosts: HOSTS }), /cannot be used/);
  });
});

describe('a certificate that the operator gives', () => {
  test('is loaded with its chain and its key from separate files', async (t) => {
    const dir = directory(t);
    const made = await ensureServerCertificate(dir, { hosts: HOSTS });
    const [certFile, keyFile] = [join(dir, 'fullchain.pem'), join(dir, 'key.pem')];
    writeFileSync(certFile, `leaf, then chain\n${made.cert}${made.ca}`);
    writeFileSync(keyFile, made.key);
    const loaded = await loadCertificate(certFile, keyFile);
    assert.equal(loaded.cert, made.cert + made.ca);
    assert.equal(loaded.key, made.key);
  });

  test('is refused with the file and the reason when it cannot be used', async (t) => {
    const dir = directory(t);
    const made = await ensureServerCertificate(dir, { hosts: HOSTS });
    const write = (name: string, text: string) => {
      writeFileSync(join(dir, name), text);
      return join(dir, name);
    };
    const cert = write('cert.pem', made.cert);
    const key = write('key.pem', made.key);
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const locked = privateKey.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' });
    const otherKey = write('other.pem', privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
    const bent = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

    await refused(loadCertificate(join(dir, 'none.pem'), key), /the certificate .*none\.pem does not exist/);
    await refused(loadCertificate(cert, join(dir, 'none.key')), /the private key .*none\.key does not exist/);
    await refused(loadCertificate(dir, key), /cannot be read \(EISDIR\)/);
    await refused(loadCertificate(write('a', 'text'), key), /the certificate .*a holds no PEM certificate/);
    await refused(loadCertificate(write('b', bent), key), /the certificate .*b is damaged/);
    await refused(loadCertificate(write('b2', made.cert + bent), key), /the certificate .*b2 is damaged/);
    await refused(loadCertificate(cert, write('c', made.cert)), /the private key .*c holds no PEM private key/);
    await refused(loadCertificate(cert, write('d', locked.toString())), /passphrase/);
    await refused(loadCertificate(cert, write('e', bent.replaceAll('CERTIFICATE', 'PRIVATE KEY'))), /is damaged/);
    await refused(loadCertificate(cert, otherKey), /other\.pem does not belong to the certificate in .*cert\.pem/);
  });

  test('is refused when it has expired or is not valid yet', async (t) => {
    for (const [years, message] of [
      [-2, /expired on/],
      [2, /is not valid before/],
    ] as const) {
      // biome-ignore format: a table
      const clock = () => Date.now() + years * 365 * DAY;
      const made = await ensureServerCertificate(directory(t), { hosts: HOSTS, clock });
      await refused(loadCertificate(made.certFile, made.certFile), message);
    }
  });
});
