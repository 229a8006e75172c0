import type { IncomingHttpHeaders } from 'node:http';
import { hasRole, type Principal, type Role } from '../../../../shared/control/principal.ts';
import { CulvertError } from '../../../../shared/errors/codes.ts';

/** What can prove who asks. */
export interface Credentials {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
}

/**
 * One way to prove who asks: undefined when the request has no credentials of its kind, so that the next one is tried.
 * @throws CulvertError for credentials of its kind that are not good
 */
export type Authenticator = (request: Credentials) => Principal | undefined | Promise<Principal | undefined>;

/** What a route asks of whoever uses it. */
export interface Permission {
  /** The least role. */
  readonly role: Role;
  /** `account`: also for those who see one account only, whose answers hold nothing else. `cluster`: not for them. */
  readonly scope: 'account' | 'cluster';
}

/** @throws CulvertError `invalid_token` when nothing proves who asks */
export async function authenticate(authenticators: readonly Authenticator[], request: Credentials): Promise<Principal> {
  for (const authenticator of authenticators) {
    const principal = await authenticator(request);
    if (principal !== undefined) return principal;
  }
  throw new CulvertError('invalid_token', 'the request has no credentials: send Authorization: Bearer <token>');
}

/** @throws CulvertError `forbidden` */
export function authorize(principal: Principal, { role, scope }: Permission): void {
  if (!hasRole(principal, role)) {
    throw new CulvertError('forbidden', `this needs the role ${role}; yours is ${principal.role}`);
  }
  if (scope === 'cluster' && principal.accountId !== undefined) {
    throw new CulvertError(
      'forbidden',
      `this is of the whole cluster; you see the account ${principal.accountId} only`,
    );
  }
}

/** Whether somebody may see what belongs to this account. */
export function maySee({ accountId }: Principal, owner: string): boolean {
  return accountId === undefined || accountId === owner;
}
