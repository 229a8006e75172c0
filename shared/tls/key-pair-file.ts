import { createPrivateKey, randomUUID, X509Certificate } from 'node:crypto';
import { chmod, link, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { CulvertError } from '../errors/codes.ts';

/** Certificates and keys in files. A file that holds both has no moment at which one is new and the other old. */

export interface ReadCertificate {
  /** The first certificate of the file: the one that the key belongs to (RFC 8446 section 4.4.2). */
  readonly certificate: X509Certificate;
  /** PEM, with the chain when the file has one. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PEM_KEY = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]+-----END [A-Z ]*PRIVATE KEY-----/;

/**
 * Reads a certificate with the key that belongs to it; both may stand in one file. Says nothing about validity in time.
 * @throws CulvertError `invalid_config` that names the file and what is wrong with it.
 */
export async function readKeyPair(certFile: string, keyFile: string): Promise<ReadCertificate> {
  const certText = await readText(certFile, 'certificate');
  const keyText = keyFile === certFile ? certText : await readText(keyFile, 'private key');
  const chain = certText.match(PEM_CERTIFICATE);
  if (chain === null) throw invalid('certificate', certFile, 'holds no PEM certificate');
  const key = PEM_KEY.exec(keyText)?.[0];
  if (key === undefined) throw invalid('private key', keyFile, 'holds no PEM private key');
  if (key.includes('ENCRYPTED')) throw invalid('private key', keyFile, 'is protected by a passphrase');
  const [certificate] = chain.map((pem) => parsed('certificate', certFile, () => new X509Certificate(pem)));
  const privateKey = parsed('private key', keyFile, () => createPrivateKey(key));
  if (certificate === undefined || !certificate.checkPrivateKey(privateKey)) {
    throw invalid('private key', keyFile, `does not belong to the certificate in ${certFile}`);
  }
  return { certificate, cert: `${chain.join('\n')}\n`, key: `${key}\n` };
}

/** Makes the directory, or takes the rights of others from one that is there. */
export async function privateDirectory(dir: string): Promise<void> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    await chmod(dir, 0o700);
  } catch (error) {
    throw invalid('certificate directory', dir, `cannot be used (${codeOf(error)})`, error);
  }
}

/** Writes the whole file in one step, readable by its owner only. */
export async function replaceFile(path: string, text: string): Promise<void> {
  await withTemporary(path, text, (temporary) => rename(temporary, path));
}

/** Writes the whole file in one step unless it is there already: of several processes the first wins. */
export async function createFile(path: string, text: string): Promise<void> {
  await withTemporary(path, text, async (temporary) => {
    try {
      // link, unlike rename, fails when the target exists.
      await link(temporary, path);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
    }
  });
}

async function withTemporary(path: string, text: string, place: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = `${path}.${randomUUID()}.tmp`;
  try {
    await writeFile(temporary, text, { mode: 0o600, flag: 'wx', flush: true });
    await place(temporary);
  } catch (error) {
    throw invalid('file', path, `cannot be written (${codeOf(error)})`, error);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const missing = codeOf(error) === 'ENOENT';
    throw invalid(what, path, missing ? 'does not exist' : `cannot be read (${codeOf(error)})`, error);
  }
}

function parsed<T>(what: string, path: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw invalid(what, path, 'is damaged', error);
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error';
}

function invalid(what: string, path: string, why: string, cause?: unknown): CulvertError {
  return new CulvertError('invalid_config', `the ${what} ${path} ${why}`, cause === undefined ? {} : { cause });
}
