import {
  createECDH,
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  KeyObject,
  randomBytes,
  webcrypto,
} from 'node:crypto';
import { CulvertError } from '../errors/codes.ts';
import type { NodeId } from '../registry/registry.ts';

/** How a node proves to the others that it belongs to the cluster, and which node it is. */
export interface ClusterIdentity {
  /** PEM of the cluster's authority: the same key and name on every node that has the same secret. */
  readonly ca: string;
  /** PEM of this node's certificate, for both ends of a TLS connection. */
  readonly cert: string;
  /** PEM, PKCS #8. */
  readonly key: string;
  /** Milliseconds since the Unix epoch; ask for a new identity before. */
  readonly expiresAt: number;
}

/** Least length of a cluster secret, bytes. It must be random: whoever reaches a relay port can test guesses against it. */
export const MIN_CLUSTER_SECRET_BYTES = 32;

/** A change to anything that is derived gets a new version, so that old and new nodes differ by name, not by accident. */
const KEY_INFO = 'culvert cluster authority key v1';
const NAME_INFO = 'culvert cluster authority name v1';
/** 384 bits: 64 above the order of P-256 are required (FIPS 186-5 appendix A.2.1), more make the bias smaller still. */
const KEY_MATERIAL_BYTES = 48;
/** The order n of P-256 (SP 800-186 section 3.2.1.3). */
const P256_ORDER = 0xffffffff_00000000_ffffffff_ffffffff_bce6faad_a7179e84_f3b9cac2_fc632551n;
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
/** The authority lives as long as the secret. The end means "no well-defined expiration" (RFC 5280 section 4.1.2.5). */
const AUTHORITY_FROM = new Date('2020-01-01T00:00:00Z');
const AUTHORITY_TO = new Date('9999-12-31T23:59:59Z');
const LEAF_LIFETIME = 365 * 86_400_000;
/** Certificates are valid from a little in the past, for peers whose clocks are behind. */
const CLOCK_SKEW = 300_000;
const NODE_ID = /^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$/;
const NODE_URI = 'culvert-node:';

/**
 * The mutual-TLS identity of a node, made from the secret that all nodes of a cluster share: an authority that each node
 * derives for itself, and a new certificate for the node, valid for a year, whose URI name holds its id.
 * @param secret at least 32 random bytes; a string counts as UTF-8
 * @param clock milliseconds since the Unix epoch. Default `Date.now`
 * @throws CulvertError `invalid_config` for a secret that is too short or a node id that a certificate cannot hold
 */
export async function clusterIdentity(
  secret: string | Uint8Array,
  nodeId: string,
  clock: () => number = Date.now,
): Promise<ClusterIdentity> {
  const material = typeof secret === 'string' ? Buffer.from(secret, 'utf8') : secret;
  if (material.byteLength < MIN_CLUSTER_SECRET_BYTES) {
    throw new CulvertError(
      'invalid_config',
      `the cluster secret must have at least ${MIN_CLUSTER_SECRET_BYTES} bytes; make one with "openssl rand -base64 48"`,
    );
  }
  if (!NODE_ID.test(nodeId)) {
    throw new CulvertError('invalid_config', `${JSON.stringify(nodeId)} is not a node id`);
  }
  // @peculiar/x509 resolves its parts with tsyringe, which refuses to load before this polyfill. Both are loaded only here:
  // parsing the library costs a start 100 ms, and a node alone needs none of it.
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const now = clock();

  const authorityKey = deriveAuthorityKey(material);
  const authorityPublicKey = webKey(createPublicKey(authorityKey), ['verify']);
  const signingKey = webKey(authorityKey, ['sign']);
  const authorityName = `CN=Culvert cluster ${derive(material, NAME_INFO, 8).toString('hex')}`;
  const authority = await x509.X509CertificateGenerator.create({
    serialNumber: '01',
    subject: authorityName,
    issuer: authorityName,
    notBefore: AUTHORITY_FROM,
    notAfter: AUTHORITY_TO,
    signingAlgorithm: ALGORITHM,
    publicKey: authorityPublicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(authorityPublicKey),
    ],
  });

  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const notAfter = new Date(now + LEAF_LIFETIME);
  const leaf = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: 'CN=Culvert node',
    issuer: authorityName,
    notBefore: new Date(now - CLOCK_SKEW),
    notAfter,
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `${NODE_URI}${nodeId}` }]),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(authorityPublicKey),
    ],
  });
  return {
    ca: `${authority.toString('pem').trim()}\n`,
    cert: `${leaf.toString('pem').trim()}\n`,
    key: KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
    expiresAt: notAfter.getTime(),
  };
}

/**
 * The node id in a certificate that was verified against the cluster's authority: its one URI name that begins with
 * `culvert-node:`. Names of other kinds beside it mean nothing here.
 * @param subjectAltName as node:tls and node:crypto give it
 */
export function certifiedNodeId(subjectAltName: string | undefined): NodeId | undefined {
  // node:crypto quotes a name that could be read as several; no id needs that.
  if (subjectAltName === undefined || subjectAltName.includes('"')) return undefined;
  const prefix = `URI:${NODE_URI}`;
  const [id, ...others] = subjectAltName
    .split(', ')
    .flatMap((name) => (name.startsWith(prefix) ? name.slice(prefix.length) : []));
  return id !== undefined && others.length === 0 && NODE_ID.test(id) ? (id as NodeId) : undefined;
}

/** HKDF-SHA-256 (RFC 5869). No salt: the secret is random already, and nodes share nothing else. */
function derive(secret: Uint8Array, info: string, bytes: number): Buffer {
  return Buffer.from(hkdfSync('sha256', secret, '', info, bytes));
}

/** FIPS 186-5 appendix A.2.1: the private key is (c mod (n − 1)) + 1, from more bits than n has. */
function deriveAuthorityKey(secret: Uint8Array): KeyObject {
  const wide = BigInt(`0x${derive(secret, KEY_INFO, KEY_MATERIAL_BYTES).toString('hex')}`);
  const scalar = (wide % (P256_ORDER - 1n)) + 1n;
  const d = Buffer.from(scalar.toString(16).padStart(64, '0'), 'hex');
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(d);
  // Uncompressed point: 0x04, x, y (SEC 1 section 2.3.3).
  const point = curve.getPublicKey();
  const x = point.subarray(1, 33).toString('base64url');
  const y = point.subarray(33, 65).toString('base64url');
  return createPrivateKey({
    format: 'jwk',
    key: { kty: 'EC', crv: 'P-256', d: d.toString('base64url'), x, y },
  });
}

function webKey(key: KeyObject, usages: ('sign' | 'verify')[]): webcrypto.CryptoKey {
  // Extractable where it is public anyway: the certificate holds it.
  return key.toCryptoKey(ALGORITHM, key.type === 'public', usages);
}

/** 127 random bits; positive and without a leading zero octet (RFC 5280 section 4.1.2.2). */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}
