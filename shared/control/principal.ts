/** What somebody may do through the API; each role may do what those before it may. */
export const ROLES = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** Who asks, once that is proved. */
export interface Principal {
  /** For logs and the audit: who it is, as far as the proof says. */
  readonly name: string;
  readonly role: Role;
  /** Sees and changes what this account has and nothing else; undefined: the whole cluster. */
  readonly accountId: string | undefined;
  /** Milliseconds since the Unix epoch: the proof holds no longer. Infinity for ever. */
  readonly expiresAt: number;
  /** The token's `jti` and `iat` (milliseconds since the Unix epoch), for revocations. */
  readonly tokenId?: string;
  readonly issuedAt?: number;
}

export function hasRole({ role }: Pick<Principal, 'role'>, wanted: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(wanted);
}
