import { createHash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto';

/**
 * API keys: `cvk_`, the id of the key's record, `_`, and 256 random bits. The id finds the record without a search; the record
 * has the digest only. A plain SHA-256 is enough, since nobody can guess 256 random bits however fast the digest is.
 */

const PREFIX = 'cvk_';
const ID_LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789';
const ID_LENGTH = 16;
const SECRET_BYTES = 32;
const KEY = /^cvk_([a-z0-9]{16})_[A-Za-z0-9_-]{43}$/;

export interface NewKey {
  readonly id: string;
  /** The key itself, shown once. */
  readonly key: string;
  readonly hash: string;
}

/** @param id of the record whose key is replaced; default a new one */
export function generateKey(id = randomId()): NewKey {
  const key = `${PREFIX}${id}_${randomBytes(SECRET_BYTES).toString('base64url')}`;
  return { id, key, hash: hashKey(key) };
}

/** The id of the record that the key names; undefined when it is not a key. */
export function keyIdOf(key: string): string | undefined {
  return KEY.exec(key)?.[1];
}

export function hashKey(key: string): string {
  return createHash('sha256').update(key).digest('base64url');
}

/** Takes the same time for any two digests. */
export function sameHash(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}

function randomId(): string {
  return Array.from({ length: ID_LENGTH }, () => ID_LETTERS[randomInt(ID_LETTERS.length)]).join('');
}
