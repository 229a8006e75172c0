import { CulvertError } from '../errors/codes.ts';
import type { Kind } from './records.ts';

/** What every store says in these cases. */
export function gone(kind: Kind, id: string): CulvertError {
  return new CulvertError('not_found', `there is no ${kind} ${id}`);
}

export function conflict(kind: Kind, id: string, expected: number): CulvertError {
  return expected === 0
    ? new CulvertError('conflict', `the ${kind} ${id} exists already`)
    : new CulvertError('conflict', `the ${kind} ${id} was changed meanwhile: read it again`);
}

export function full(kind: Kind, limit: number): CulvertError {
  return new CulvertError('quota_exceeded', `the cluster has ${limit} records of the kind ${kind}, its limit`);
}

export function notEmpty(id: string): CulvertError {
  return new CulvertError('conflict', `the account ${id} still has agents or keys`);
}
