import { CulvertError } from '../errors/codes.ts';
import { generateKey } from './api-key.ts';
import type { Directory } from './directory.ts';
import {
  type FieldsOf,
  type KeyRecord,
  LONGEST_REVOCATION,
  type Revocation,
  revocationId,
  type Target,
} from './records.ts';

/** What takes more than one record, or a secret. Each works on any directory and can be repeated when it fails half way. */

/** Attempts at a change that others make at the same time. */
const ATTEMPTS = 5;
/** A key that has expired is listed for this long, milliseconds. */
const EXPIRED_KEY_KEPT = 30 * 86_400_000;

export interface RevocationRequest {
  readonly target: Target;
  /** Of an agent or account: only what was issued before this time, milliseconds since the Unix epoch. Default now. */
  readonly before?: number;
  /** Milliseconds since the Unix epoch. Default, and at most, ten years from now. */
  readonly endsAt?: number;
  readonly reason?: string;
  readonly by: string;
}

/**
 * Takes something back. Two revocations of one target become one that refuses whatever either does.
 * @throws CulvertError `not_found` for a key that is not there; else as `Directory.put`
 */
export async function revoke(directory: Directory, request: RevocationRequest, now = Date.now()): Promise<Revocation> {
  const { target, reason = '', by } = request;
  if (target.type === 'key' && directory.get('key', target.keyId) === undefined) throw noSuchKey();
  const longest = now + LONGEST_REVOCATION;
  // The revocation of a key that ends before the key does would let it in again; `sweep` removes it with the key.
  const endsAt = target.type === 'key' ? longest : Math.min(request.endsAt ?? longest, longest);
  const id = revocationId(target);
  for (let attempt = 1; ; attempt += 1) {
    const there = directory.get('revocation', id);
    const fields = {
      target,
      before: Math.max(request.before ?? now, there?.before ?? 0),
      reason: reason === '' && there !== undefined ? there.reason : reason,
      endsAt: Math.max(endsAt, there?.endsAt ?? 0),
      createdBy: there?.createdBy ?? by,
    };
    try {
      return await directory.put('revocation', id, fields, there?.version ?? 0);
    } catch (error) {
      if (!isConflict(error) || attempt === ATTEMPTS) throw error;
    }
  }
}

export type KeySpec = Omit<FieldsOf<'key'>, 'hash' | 'issuedAt' | 'previous'>;

/** @returns the record, and the key itself, which nobody can be told again */
export async function createKey(
  directory: Directory,
  spec: KeySpec,
  now = Date.now(),
): Promise<{ record: KeyRecord; key: string }> {
  if (spec.agentId !== null && spec.accountId === null) {
    throw new CulvertError('bad_request', 'a key for one agent needs the account of that agent');
  }
  const { id, key, hash } = generateKey();
  const record = await directory.put('key', id, { ...spec, hash, issuedAt: now, previous: null }, 0);
  return { record, key };
}

/**
 * Gives a key record a new key.
 * @param overlap milliseconds for which the present key is good still
 * @throws CulvertError `not_found`; else as `Directory.put`
 */
export async function rotateKey(
  directory: Directory,
  id: string,
  overlap: number,
  now = Date.now(),
): Promise<{ record: KeyRecord; key: string }> {
  const record = directory.get('key', id);
  if (record === undefined) throw noSuchKey();
  const { id: _, version, createdAt: __, hash, issuedAt, ...fields } = record;
  const fresh = generateKey(id);
  const previous = overlap > 0 ? { hash, issuedAt, until: now + overlap } : null;
  const put = { ...fields, hash: fresh.hash, issuedAt: now, previous };
  return { record: await directory.put('key', id, put, version), key: fresh.key };
}

/**
 * Removes an account with its agents and keys. Tokens that name it are refused from then on, so that without its record it does
 * not become an account that only tokens decide about.
 * @throws CulvertError as `Directory.remove`
 */
export async function removeAccount(directory: Directory, id: string, expected: number, by: string): Promise<void> {
  if (directory.get('account', id)?.version !== expected) {
    // The store says which of the two it is.
    await directory.remove('account', id, expected);
    return;
  }
  await revoke(directory, { target: { type: 'account', accountId: id }, reason: 'the account was removed', by });
  for (const kind of ['key', 'agent'] as const) {
    for (const record of directory.list(kind, { where: ({ accountId }) => accountId === id })) {
      await ignoring(['not_found'], directory.remove(kind, record.id, record.version));
    }
  }
  await directory.remove('account', id, expected);
}

/** Removes what has ended. Any node may do it at any time. @returns records removed */
export async function sweep(directory: Directory, now = Date.now()): Promise<number> {
  let removed = 0;
  const remove = async (kind: 'key' | 'revocation', id: string, version: number): Promise<void> => {
    removed += (await ignoring(['not_found', 'conflict'], directory.remove(kind, id, version))) ? 1 : 0;
  };
  const longGone = now - EXPIRED_KEY_KEPT;
  const expired = directory.list('key', { where: ({ expiresAt }) => expiresAt !== null && expiresAt <= longGone });
  for (const { id, version } of expired) await remove('key', id, version);
  // A key that is not there is refused without its revocation.
  const isOver = ({ endsAt, target }: Revocation): boolean =>
    endsAt <= now || (target.type === 'key' && directory.get('key', target.keyId) === undefined);
  for (const { id, version, target } of directory.list('revocation', { where: isOver })) {
    // Not the revocation first: its key would be good again until the next line.
    const key = target.type === 'key' ? directory.get('key', target.keyId) : undefined;
    if (key !== undefined) await remove('key', key.id, key.version);
    await remove('revocation', id, version);
  }
  return removed;
}

function noSuchKey(): CulvertError {
  return new CulvertError('not_found', 'there is no such API key');
}

async function ignoring(codes: readonly string[], work: Promise<void>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    if (error instanceof CulvertError && codes.includes(error.code)) return false;
    throw error;
  }
}

function isConflict(error: unknown): boolean {
  return error instanceof CulvertError && (error.code === 'conflict' || error.code === 'not_found');
}
