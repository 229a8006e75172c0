import { CulvertError } from '../errors/codes.ts';
import { hashKey, keyIdOf, sameHash } from './api-key.ts';
import type { Directory } from './directory.ts';
import { agentRecordId, type KeyRecord, type Kind, type Revocation, revocationId, type Target } from './records.ts';

/** What decides needs of the directory. */
export type DirectoryView = Pick<Directory, 'get' | 'isUnreadable' | 'unloaded'>;

/** Who asks to be let in, once a signature or a key has proved it. */
export interface Bearer {
  readonly accountId: string;
  readonly agentId: string;
  /** The token's `jti`. */
  readonly tokenId?: string;
  /** Milliseconds since the Unix epoch; undefined for a token that does not say. */
  readonly issuedAt?: number;
  /** The API key that was shown in place of a token. */
  readonly key?: KeyProof;
}

export interface KeyProof {
  readonly id: string;
  readonly hash: string;
}

export interface AccessRules {
  /** Refuses accounts that have no record. */
  readonly requireAccounts: boolean;
}

export interface Verdict {
  readonly refusal: CulvertError | undefined;
  /** Milliseconds since the Unix epoch: what was proved is good until then, as far as the directory knows. Infinity for ever. */
  readonly until: number;
}

/**
 * Whether the bearer may be, or stay, connected: asked at authentication and again whenever a record changes. From memory.
 * What cannot be read counts as a refusal.
 */
export function judge(view: DirectoryView, bearer: Bearer, rules: AccessRules, now = Date.now()): Verdict {
  const unloaded = view.unloaded();
  if (unloaded !== undefined) return refused(unloaded);
  const { accountId, agentId, tokenId, key } = bearer;
  const account = view.get('account', accountId);
  if (account?.disabled || view.isUnreadable('account', accountId)) return no(`the account ${accountId} is disabled`);
  if (account === undefined && rules.requireAccounts) return no(`this cluster has no account ${accountId}`);
  const agent = agentRecordId(accountId, agentId);
  if (view.get('agent', agent)?.disabled || view.isUnreadable('agent', agent)) {
    return no(`the agent ${agentId} is disabled`);
  }
  const proof = key === undefined ? undefined : judgeKey(view, key, now);
  if (proof?.refusal !== undefined) return refused(proof.refusal);
  if (tokenId !== undefined && isRevoked(view, { type: 'token', tokenId }, now)) return no('the token is revoked');
  const issuedAt = proof?.issuedAt ?? bearer.issuedAt;
  if (isRevoked(view, { type: 'account', accountId }, now, issuedAt)) {
    return no(`what was issued to the account ${accountId} until then is revoked`);
  }
  if (isRevoked(view, { type: 'agent', accountId, agentId }, now, issuedAt)) {
    return no(`what was issued to the agent ${agentId} until then is revoked`);
  }
  return { refusal: undefined, until: proof?.until ?? Number.POSITIVE_INFINITY };
}

/** Whether nobody may serve this (normalised) tunnel name. */
export function isNameRevoked(view: DirectoryView, name: string, now = Date.now()): boolean {
  return isRevoked(view, { type: 'name', name }, now);
}

/**
 * The record of an API key that somebody shows. Whether its account and agent may be let in is for `judge`.
 * @throws CulvertError `invalid_token` for a key that is not known, has expired or is replaced; `access_revoked` for one that is
 * revoked; what `unloaded` says while the directory is not there
 */
export function authenticateKey(
  view: DirectoryView,
  text: string,
  now = Date.now(),
): { record: KeyRecord; proof: KeyProof } {
  const unloaded = view.unloaded();
  if (unloaded !== undefined) throw unloaded;
  const id = keyIdOf(text);
  const proof = { id: id ?? '', hash: hashKey(text) };
  const { refusal } = judgeKey(view, proof, now);
  if (refusal !== undefined) throw refusal;
  const record = view.get('key', proof.id);
  if (record === undefined) throw unknownKey();
  return { record, proof };
}

interface KeyVerdict {
  readonly refusal?: CulvertError;
  readonly until?: number;
  readonly issuedAt?: number;
}

function judgeKey(view: DirectoryView, { id, hash }: KeyProof, now: number): KeyVerdict {
  const record = view.get('key', id);
  if (record === undefined) return { refusal: unknownKey() };
  const { previous } = record;
  const isCurrent = sameHash(record.hash, hash);
  const isPrevious = previous !== null && sameHash(previous.hash, hash);
  if (!isCurrent && !isPrevious) return { refusal: unknownKey() };
  if (isRevoked(view, { type: 'key', keyId: id }, now)) return { refusal: revoked('the API key is revoked') };
  const ends = record.expiresAt ?? Number.POSITIVE_INFINITY;
  const until = isCurrent || previous === null ? ends : Math.min(previous.until, ends);
  if (until <= now) {
    const why = ends <= now ? 'the API key has expired' : 'the API key was replaced by another';
    return { refusal: new CulvertError('invalid_token', why) };
  }
  return { until, issuedAt: isCurrent || previous === null ? record.issuedAt : previous.issuedAt };
}

/** @param issuedAt for targets whose revocation has a `before`; undefined counts as issued before it */
function isRevoked(view: DirectoryView, target: Target, now: number, issuedAt?: number): boolean {
  const id = revocationId(target);
  const kind: Kind = 'revocation';
  const revocation: Revocation | undefined = view.get(kind, id);
  if (revocation === undefined) return view.isUnreadable(kind, id);
  if (revocation.endsAt <= now) return false;
  const isPartial = target.type === 'account' || target.type === 'agent';
  return !isPartial || issuedAt === undefined || issuedAt < revocation.before;
}

function unknownKey(): CulvertError {
  return new CulvertError('invalid_token', 'the API key is not known');
}

function revoked(message: string): CulvertError {
  return new CulvertError('access_revoked', message);
}

function no(message: string): Verdict {
  return refused(revoked(message));
}

function refused(refusal: CulvertError): Verdict {
  return { refusal, until: 0 };
}
