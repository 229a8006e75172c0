import { z } from 'zod';
import { CulvertError } from '../errors/codes.ts';

/** The durable records of a cluster: what they hold and what they are called. No type of a store stands here. */

export const KINDS = ['account', 'agent', 'key', 'revocation'] as const;
export type Kind = (typeof KINDS)[number];

/** What every record has besides its own fields. */
export interface Recorded {
  readonly id: string;
  /** Milliseconds since the Unix epoch of the last change, or one more than the newest version before it: never decreases. */
  readonly version: number;
  /** Milliseconds since the Unix epoch. */
  readonly createdAt: number;
}

/** Records of each kind that a cluster holds at most. Every node has all of them in memory. */
export const LIMITS: Readonly<Record<Kind, number>> = {
  account: 100_000,
  agent: 100_000,
  key: 50_000,
  revocation: 50_000,
};

/** Longest record as JSON, bytes. */
export const MAX_RECORD_BYTES = 32 * 1024;

/** The furthest end of a revocation from now, milliseconds: as long as the longest token that `culvert token create` makes. */
export const LONGEST_REVOCATION = 3650 * 86_400_000;

/** An id of an account or agent, as in tokens. */
export const identifier = z.string().regex(/^[A-Za-z0-9._:@-]{1,128}$/, {
  error: 'must be 1 to 128 letters, digits or . _ : @ -',
});
const label = z.string().max(200);
const author = z.string().max(200);
const time = z.int().min(0).max(8.64e15);
/** Limits of an account or key; what nothing here knows is kept as it is. */
const limits = z.record(z.string().max(64), z.json());
const digest = z.string().regex(/^[A-Za-z0-9_-]{43}$/);

const ROLES = ['viewer', 'operator', 'admin'] as const;
/** What a key is good for: agents sign in with it, or people and programs call the API. */
const SCOPES = ['connect', 'api'] as const;

const AccountFields = z.object({
  /** For people. */
  name: label,
  /** Nothing of the account is let in, and what is connected is closed. */
  disabled: z.boolean(),
  limits,
  createdBy: author,
});

const AgentFields = z.object({
  accountId: identifier,
  agentId: identifier,
  name: label,
  disabled: z.boolean(),
  createdBy: author,
});

const KeyFields = z.object({
  name: label,
  /** SHA-256 of the key, base64url. */
  hash: digest,
  /** When this key, which a rotation replaces, was made. */
  issuedAt: time,
  /** The key before the last rotation, good until then. */
  previous: z.object({ hash: digest, issuedAt: time, until: time }).nullable(),
  /** Null: a key of the cluster, not of one account. */
  accountId: identifier.nullable(),
  /** The one agent that may sign in with it; null: any of the account. */
  agentId: identifier.nullable(),
  role: z.enum(ROLES),
  scopes: z.array(z.enum(SCOPES)).min(1),
  /** Tunnel names that an agent with this key may register, as in a token's claim `names`; null: every subdomain. */
  names: z
    .array(z.string().regex(/^(?:[A-Za-z0-9.-]{1,253}\*?|\*)$/))
    .max(100)
    .nullable(),
  limits,
  /** Null: never. */
  expiresAt: time.nullable(),
  createdBy: author,
});

/** What is taken back. */
const Target = z.discriminatedUnion('type', [
  /** The token with this `jti`. */
  z.object({ type: z.literal('token'), tokenId: z.string().min(1).max(128) }),
  /** All tokens and keys of an agent, issued before `before`. */
  z.object({ type: z.literal('agent'), accountId: identifier, agentId: identifier }),
  z.object({ type: z.literal('account'), accountId: identifier }),
  z.object({ type: z.literal('key'), keyId: z.string() }),
  /** No one may serve this tunnel name. */
  z.object({ type: z.literal('name'), name: z.string().min(1).max(253) }),
]);
export type Target = z.infer<typeof Target>;

const RevocationFields = z.object({
  target: Target,
  /** Of an agent or account: what was issued at or after this time is good. Not used for the others. */
  before: time,
  /** For people. */
  reason: label,
  /** From then on it counts no more, and it is swept. */
  endsAt: time,
  createdBy: author,
});

const FIELDS = { account: AccountFields, agent: AgentFields, key: KeyFields, revocation: RevocationFields } as const;

export type FieldsOf<K extends Kind> = z.infer<(typeof FIELDS)[K]>;
export type RecordOf<K extends Kind> = Readonly<FieldsOf<K>> & Recorded;
export type KeyRecord = RecordOf<'key'>;
export type Revocation = RecordOf<'revocation'>;

const KEY_ID = /^[a-z0-9]{16}$/;

/** Agents are told apart within their account only, so that no account can take an id that another one needs. */
export function agentRecordId(accountId: string, agentId: string): string {
  return `${accountId}/${agentId}`;
}

/** One target has one revocation at most: it is found without a search. */
export function revocationId(target: Target): string {
  switch (target.type) {
    case 'token':
      return `token:${target.tokenId}`;
    case 'agent':
      return `agent:${agentRecordId(target.accountId, target.agentId)}`;
    case 'account':
      return `account:${target.accountId}`;
    case 'key':
      return `key:${target.keyId}`;
    case 'name':
      return `name:${target.name}`;
  }
}

/**
 * The fields as they are stored.
 * @param before the record that they replace
 * @throws CulvertError `bad_request` when they are not valid, too long, do not belong to the id, or name another account
 */
export function encodeFields<K extends Kind>(
  kind: K,
  id: string,
  fields: FieldsOf<K>,
  before: RecordOf<K> | undefined,
): string {
  const parsed = FIELDS[kind].safeParse(fields);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new CulvertError(
      'bad_request',
      `${kind}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is not valid'}`,
    );
  }
  if (!belongs(kind, id, parsed.data))
    throw new CulvertError('bad_request', `${JSON.stringify(id)} is no id of this ${kind}`);
  if (before !== undefined && ownerOf(kind, before) !== ownerOf(kind, fields)) {
    throw new CulvertError('bad_request', `the ${kind} cannot move to another account`);
  }
  const json = JSON.stringify(parsed.data);
  if (Buffer.byteLength(json) > MAX_RECORD_BYTES) {
    throw new CulvertError('bad_request', `the ${kind} is longer than ${MAX_RECORD_BYTES} bytes`);
  }
  return json;
}

/** Undefined when a store holds something that is no such record. */
export function decodeFields<K extends Kind>(kind: K, json: string): FieldsOf<K> | undefined {
  try {
    // The schema is chosen by the kind, which its output type cannot express.
    return FIELDS[kind].parse(JSON.parse(json)) as FieldsOf<K>;
  } catch {
    return undefined;
  }
}

/** The account whose the record is; undefined for those of none. */
export function ownerOf(kind: Kind, fields: object): string | undefined {
  if (kind !== 'agent' && kind !== 'key') return undefined;
  return 'accountId' in fields && typeof fields.accountId === 'string' ? fields.accountId : undefined;
}

function belongs(kind: Kind, id: string, fields: FieldsOf<Kind>): boolean {
  if (kind === 'account') return identifier.safeParse(id).success;
  if (kind === 'key') return KEY_ID.test(id);
  if ('target' in fields) return id === revocationId(fields.target);
  return 'agentId' in fields && id === agentRecordId(fields.accountId ?? '', fields.agentId ?? '');
}
