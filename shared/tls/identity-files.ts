import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { CulvertError } from '../errors/codes.ts';
import { loadCertificate } from './certificates.ts';
import { type ClusterIdentity, certifiedNodeId } from './cluster-identity.ts';

export interface IdentityFiles {
  /** PEM: the node's certificate with its chain, leaf first. */
  readonly cert: string;
  /** PEM: its private key. */
  readonly key: string;
  /** PEM: the authorities that may sign certificates of nodes. Whoever has one of theirs that names a node is let in. */
  readonly ca: string;
}

/**
 * The mutual-TLS identity of a node from files, instead of one that `clusterIdentity` derives. The certificate is for servers and
 * clients both, and has the URI name `culvert-node:<node id>`.
 * @throws CulvertError `invalid_config` for files that cannot be read, do not fit together, or are for another node
 */
export async function identityFromFiles(files: IdentityFiles, nodeId: string): Promise<ClusterIdentity> {
  const { cert, key, expiresAt } = await loadCertificate(files.cert, files.key);
  const named = certifiedNodeId(new X509Certificate(cert).subjectAltName);
  if (named !== nodeId) {
    const found = named === undefined ? 'names no node' : `is for node ${named}`;
    const wanted = `it needs the URI name culvert-node:${nodeId}, for node-id ${nodeId}`;
    throw new CulvertError('invalid_config', `the certificate ${files.cert} ${found}: ${wanted}`);
  }
  return { ca: await readAuthorities(files.ca), cert, key, expiresAt };
}

async function readAuthorities(file: string): Promise<string> {
  try {
    const ca = await readFile(file, 'utf8');
    for (const pem of ca.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? ['']) {
      if (!new X509Certificate(pem).ca) throw new Error('it holds a certificate that is no authority');
    }
    return ca;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CulvertError('invalid_config', `relay-tls-ca: ${file} cannot be used: ${why}`, { cause: error });
  }
}
