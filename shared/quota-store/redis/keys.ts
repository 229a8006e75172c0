import type { Month } from '../quota-store.ts';

/** Where limits lie in Redis. KEYS.md beside this file says what each key holds. */

const PREFIX = 'culvert:v1:quota:';

/** Usage of a month is kept for about 14 months, milliseconds. */
export const USAGE_KEPT = 425 * 86_400_000;

export function bucketKey(accountId: string, bucket: string): string {
  return `${tagged(accountId)}bucket:${part(bucket)}`;
}

export function permitKey(accountId: string, permit: string): string {
  return `${tagged(accountId)}permits:${part(permit)}`;
}

export function usageKey(accountId: string, month: Month): string {
  return `${tagged(accountId)}usage:${month}`;
}

function tagged(accountId: string): string {
  return `${PREFIX}{${part(accountId)}}:`;
}

/** Escaped, so that no id can end its part of the key and imitate another key. */
function part(id: string): string {
  return encodeURIComponent(id.toWellFormed());
}
