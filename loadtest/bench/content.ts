import { createCipheriv, createHash, randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

/** Paths that nginx serves. */
export const SMALL_PATH = '/1k.bin';
export const LARGE_PATH = '/1g.bin';
/** Bytes. */
export const SMALL_BYTES = 1024;
export const LARGE_BYTES = 1_000_000_000;

const CHUNK_BYTES = 4_000_000;

/** SHA-256 of the two files, in hex. */
export interface Digests {
  readonly small: string;
  readonly large: string;
}

/**
 * Writes the two files. Their bytes are the keystream of AES-CTR: as fast to make as to write, and a block that is lost,
 * doubled or out of order changes the checksum, which it would not in a file of zeros.
 */
export async function writeContent(root: string, signal: AbortSignal): Promise<Digests> {
  mkdirSync(root);
  const small = randomBytes(SMALL_BYTES);
  writeFileSync(join(root, SMALL_PATH), small);
  return { small: createHash('sha256').update(small).digest('hex'), large: await writeLarge(root, signal) };
}

async function writeLarge(root: string, signal: AbortSignal): Promise<string> {
  const keystream = createCipheriv('aes-128-ctr', randomBytes(16), randomBytes(16));
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(CHUNK_BYTES);
  const file = await open(join(root, LARGE_PATH), 'w');
  try {
    for (let written = 0; written < LARGE_BYTES; written += CHUNK_BYTES) {
      signal.throwIfAborted();
      const chunk = keystream.update(zeros);
      hash.update(chunk);
      await file.writeFile(chunk);
    }
  } finally {
    await file.close();
  }
  return hash.digest('hex');
}
