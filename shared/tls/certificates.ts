import { X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { CulvertError } from '../errors/codes.ts';
import { createFile, privateDirectory, type ReadCertificate, readKeyPair, replaceFile } from './key-pair-file.ts';

/** A certificate that a listener can use now. */
export interface LoadedCertificate {
  /** PEM, with the chain when the file has one. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
  /** Milliseconds since the Unix epoch. */
  readonly expiresAt: number;
}

export interface ServerCertificate extends LoadedCertificate {
  /** PEM of the authority, for peers to verify with. */
  readonly ca: string;
  /** Holds `cert` and `key` together. */
  readonly certFile: string;
  readonly caFile: string;
}

export interface ServerCertificateOptions {
  /**
   * DNS names and IP addresses, 1 to 100. A first label `*` stands for any one label; clients honour it only where two more
   * labels follow (RFC 6125 section 7.2), so `*.localhost` matches nothing.
   */
  readonly hosts: readonly string[];
  /** Milliseconds since the Unix epoch. Default `Date.now`. */
  readonly clock?: () => number;
}

const RENEW_BEFORE = 30 * 86_400_000;
const MAX_HOSTS = 100;
const DNS_NAME = /^(?:\*\.)?(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*$/;

/**
 * The certificate of a server that has none of its own: signed by an authority that is made once and then kept in `dir`, and
 * renewed when fewer than 30 days of its year remain or `hosts` changed. Processes may share `dir` and start at once.
 *
 * Files, all readable by their owner only: `ca.pem` the authority with its key, `ca.crt` the authority alone, `server.pem`.
 * @throws CulvertError `invalid_config` when the directory cannot be used, `hosts` has something else than names and
 * addresses, or the authority is damaged or expired; it is never replaced, because the agents trust it.
 */
export async function ensureServerCertificate(
  dir: string,
  options: ServerCertificateOptions,
): Promise<ServerCertificate> {
  const hosts = normalizeHosts(options.hosts);
  const now = (options.clock ?? Date.now)();
  const caPair = join(dir, 'ca.pem');
  const caFile = join(dir, 'ca.crt');
  const certFile = join(dir, 'server.pem');
  await privateDirectory(dir);

  if (!existsSync(caPair)) {
    const { issueAuthority } = await import('./issue.ts');
    const made = await issueAuthority(now);
    await createFile(caPair, made.cert + made.key);
  }
  const authority = await readKeyPair(caPair, caPair);
  assertInTime(authority.certificate, caPair, now);
  // Written each time: whoever made ca.pem may have ended before it came here, and the text is the same for all.
  await replaceFile(caFile, authority.cert);

  const found = await usableServer(certFile, authority.certificate, hosts, now);
  if (found !== undefined) return { ...loaded(found), ca: authority.cert, certFile, caFile };
  const { issueServer } = await import('./issue.ts');
  const { cert, key } = await issueServer(authority, hosts, now);
  await replaceFile(certFile, cert + key);
  // What was made here, not what the file holds: another process may have replaced it, and both are good.
  return { cert, key, expiresAt: expiryOf(new X509Certificate(cert)), ca: authority.cert, certFile, caFile };
}

/**
 * Reads a certificate (with its chain, leaf first) and its private key, PEM.
 * @throws CulvertError `invalid_config` when a file is missing, unreadable, not PEM or damaged, when the key belongs to
 * another certificate, or when the certificate is expired or not valid yet.
 */
export async function loadCertificate(certFile: string, keyFile: string): Promise<LoadedCertificate> {
  const read = await readKeyPair(certFile, keyFile);
  assertInTime(read.certificate, certFile, Date.now());
  return loaded(read);
}

async function usableServer(
  certFile: string,
  authority: X509Certificate,
  hosts: readonly string[],
  now: number,
): Promise<ReadCertificate | undefined> {
  if (!existsSync(certFile)) return undefined;
  const read = await readKeyPair(certFile, certFile).catch(() => undefined);
  if (read === undefined) return undefined;
  const { certificate } = read;
  const fits =
    expiryOf(certificate) - now >= Math.min(RENEW_BEFORE, expiryOf(authority) - now) &&
    certificate.checkIssued(authority) &&
    certificate.verify(authority.publicKey) &&
    hasExactly(certificate, hosts);
  return fits ? read : undefined;
}

function hasExactly(certificate: X509Certificate, hosts: readonly string[]): boolean {
  const listed = certificate.subjectAltName?.split(', ') ?? [];
  if (listed.length !== hosts.length) return false;
  return hosts.every((host) =>
    isIP(host) === 0 ? listed.includes(`DNS:${host}`) : certificate.checkIP(host) !== undefined,
  );
}

function normalizeHosts(hosts: readonly string[]): string[] {
  const unique = [...new Set(hosts.map((host) => host.toLowerCase()))];
  if (unique.length === 0 || unique.length > MAX_HOSTS) {
    throw new CulvertError('invalid_config', `a certificate needs 1 to ${MAX_HOSTS} hosts, not ${unique.length}`);
  }
  for (const host of unique) {
    if (isIP(host) === 0 && (host.length > 253 || !DNS_NAME.test(host))) {
      throw new CulvertError('invalid_config', `${JSON.stringify(host)} is neither a DNS name nor an IP address`);
    }
  }
  return unique;
}

function assertInTime(certificate: X509Certificate, file: string, now: number): void {
  const wrong =
    now >= expiryOf(certificate)
      ? `expired on ${certificate.validToDate.toISOString()}`
      : now < certificate.validFromDate.getTime()
        ? `is not valid before ${certificate.validFromDate.toISOString()}`
        : undefined;
  if (wrong !== undefined) throw new CulvertError('invalid_config', `the certificate ${file} ${wrong}`);
}

function expiryOf(certificate: X509Certificate): number {
  return certificate.validToDate.getTime();
}

function loaded({ cert, key, certificate }: ReadCertificate): LoadedCertificate {
  return { cert, key, expiresAt: expiryOf(certificate) };
}
