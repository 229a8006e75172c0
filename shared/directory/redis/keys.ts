import type { Kind } from '../records.ts';

/** Where everything lies in Redis. KEYS.md beside this file says what each key holds. */

/** One hash tag: every script sees all records, and one counter orders all changes. */
const BASE = 'culvert:v1:durable:{directory}:';

export const RECORDS: Readonly<Record<Kind, string>> = {
  account: `${BASE}accounts`,
  agent: `${BASE}agents`,
  key: `${BASE}keys`,
  revocation: `${BASE}revocations`,
};

/** What every script gets, in this order. */
export const KEYS = [
  `${BASE}meta`,
  RECORDS.account,
  RECORDS.agent,
  RECORDS.key,
  RECORDS.revocation,
  `${BASE}members`,
  `${BASE}gone`,
  `${BASE}recent`,
] as const;

export const EVENTS = 'culvert:v1:durable:events';
