import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { type ClusterIdentity, certifiedNodeId, clusterIdentity } from './cluster-identity.ts';

const SECRET = 'a cluster secret of thirty-two bytes or more';
const OTHER_SECRET = 'a cluster secret of thirty-two bytes or mora';
const DAY = 86_400_000;

/**
 * A TLS 1.3 connection in which each side verifies the other. Resolves with what each side read in the other's certificate
 * once a byte has come from the server: only then has it accepted the client's certificate (RFC 8446 section 4.4.4).
 */
async function meet(t: TestContext, server: ClusterIdentity, client: Partial<ClusterIdentity>): Promise<unknown[]> {
  const listener = createServer(
    { ...tlsOf(server), minVersion: 'TLSv1.3', requestCert: true, rejectUnauthorized: true },
    (socket) => socket.end('x'),
  );
  const open = new Set<Socket>();
  listener.on('connection', (socket: Socket) => open.add(socket));
  listener.on('tlsClientError', () => {});
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const accepted: Promise<TLSSocket[]> = once(listener, 'secureConnection');
  const { port } = listener.address() as AddressInfo;
  const { ca = server.ca, cert, key } = client;
  const socket = connect({
    ...{ port, host: '127.0.0.1', ca, minVersion: 'TLSv1.3', checkServerIdentity: () => undefined },
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  });
  t.after(() => {
    socket.destroy();
    listener.close();
    for (const each of open) each.destroy();
  });
  await Promise.race([
    once(socket, 'data'),
    once(socket, 'close').then(() => Promise.reject(new Error('closed without an alert'))),
  ]);
  const [far] = await accepted;
  assert.equal(far?.authorized, true);
  return [
    certifiedNodeId(socket.getPeerX509Certificate()?.subjectAltName),
    certifiedNodeId(far?.getPeerX509Certificate()?.subjectAltName),
  ];
}

function tlsOf({ ca, cert, key }: ClusterIdentity): { ca: string; cert: string; key: string } {
  return { ca, cert, key };
}

describe('nodes with one cluster secret', () => {
  test('trust each other without a file and know who the other is', async (t) => {
    const a = await clusterIdentity(SECRET, 'node-a');
    const b = await clusterIdentity(Buffer.from(SECRET), 'B:1@rack_2.example');
    assert.notEqual(a.cert, b.cert);
    assert.deepEqual(await meet(t, a, b), ['node-a', 'B:1@rack_2.example']);
    assert.deepEqual(await meet(t, b, a), ['B:1@rack_2.example', 'node-a']);
  });

  test('derive one authority: the same name, key and validity, today and in a year', async () => {
    const today = new X509Certificate((await clusterIdentity(SECRET, 'a')).ca);
    const later = new X509Certificate((await clusterIdentity(SECRET, 'b', () => Date.now() + 365 * DAY)).ca);
    for (const field of ['subject', 'issuer', 'serialNumber', 'validFrom', 'validTo'] as const) {
      assert.equal(today[field], later[field]);
    }
    const point = (certificate: X509Certificate) => certificate.publicKey.export({ format: 'jwk' });
    assert.deepEqual(point(today), point(later));
    assert.ok(today.ca && today.verify(later.publicKey));
    // Fixed for good, because nodes of different releases share a cluster. Computed with another implementation.
    assert.equal(today.subject, 'CN=Culvert cluster 75dc006075748d12');
    assert.deepEqual(point(today), {
      kty: 'EC',
      crv: 'P-256',
      x: 'djWFfi78onDEk6t4QTO7azOqQnf49XLKmSejYvF5YBs',
      y: 'Am4KsWQQYbOfsSaGDU3G-LV0vkSgBW_e-gQS2Pimx98',
    });
  });

  test('have certificates that last a year and pass the strict checks of openssl for both ends', async (t) => {
    const identity = await clusterIdentity(SECRET, 'node-a');
    const leaf = new X509Certificate(identity.cert);
    assert.equal(leaf.ca, false);
    assert.equal(leaf.validToDate.getTime(), Math.floor(identity.expiresAt / 1000) * 1000);
    assert.ok(Math.abs(identity.expiresAt - Date.now() - 365 * DAY) < DAY);
    const dir = mkdtempSync(join(tmpdir(), 'culvert-cluster-'));
    t.after(() => rmSync(dir, { recursive: true, force: true }));
    writeFileSync(join(dir, 'ca'), identity.ca);
    writeFileSync(join(dir, 'leaf'), identity.cert);
    for (const purpose of ['sslserver', 'sslclient']) {
      const { stdout } = await promisify(execFile)('openssl', [
        ...['verify', '-x509_strict', '-purpose', purpose, '-CAfile', join(dir, 'ca'), join(dir, 'leaf')],
      ]);
      assert.match(stdout, /: OK/);
    }
  });
});

describe('a node of another cluster', () => {
  test('is refused as a client, and refuses as a client', async (t) => {
    const ours = await clusterIdentity(SECRET, 'node-a');
    const theirs = await clusterIdentity(OTHER_SECRET, 'node-a');
    await assert.rejects(meet(t, ours, theirs), /certificate|signature/i);
    await assert.rejects(meet(t, ours, { ...theirs, ca: ours.ca }), /alert|ECONNRESET/);
    await assert.rejects(meet(t, ours, {}), /alert|ECONNRESET/);
  });

  test('is refused also when it copies the name of our authority', async (t) => {
    const ours = await clusterIdentity(SECRET, 'node-a');
    const theirs = await clusterIdentity(OTHER_SECRET, 'node-a');
    const point = (pem: string) => new X509Certificate(pem).publicKey.export({ format: 'jwk' });
    assert.notDeepEqual(point(ours.ca), point(theirs.ca));
    assert.equal(new X509Certificate(theirs.cert).verify(new X509Certificate(ours.ca).publicKey), false);
    await assert.rejects(meet(t, theirs, { ...ours, ca: theirs.ca }), /alert|ECONNRESET/);
  });
});

describe('a cluster identity', () => {
  test('is not made from a short secret or for something that is no node id', async () => {
    for (const [secret, id] of [
      ['x'.repeat(31), 'a'],
      [Buffer.alloc(31), 'a'],
      [SECRET, ''],
      [SECRET, 'a b'],
      [SECRET, 'a, URI:culvert-node:b'],
      [SECRET, 'x'.repeat(129)],
    ] as const) {
      await assert.rejects(clusterIdentity(secret, id), { code: 'invalid_config' });
    }
  });

  test('names a node only with exactly one name of our kind', () => {
    for (const names of [
      'URI:culvert-node:a',
      'DNS:x, URI:culvert-node:a, IP Address:10.0.0.1',
      'URI:https://b, URI:culvert-node:a',
    ]) {
      assert.equal(certifiedNodeId(names), 'a', names);
    }
    const others: (string | undefined)[] = [
      undefined,
      ...['', 'DNS:a', 'DNS:culvert-node:a', 'URI:culvert-node:', 'URI:culvert-node:a, URI:culvert-node:b'],
      ...['URI:https://a', 'URI:"culvert-node:a"', 'DNS:"x, URI:culvert-node:b", URI:culvert-node:a'],
    ];
    for (const name of others) assert.equal(certifiedNodeId(name), undefined, String(name));
  });
});
