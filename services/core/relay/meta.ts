import { CulvertError } from '../../../shared/errors/codes.ts';
import type { SessionId, SessionRef } from '../../../shared/registry/registry.ts';

/**
 * What a relayed request head says to the node that has the agent, in its metadata (PROTOCOL.md section 4):
 * `session=<id> epoch=<epoch>` names the endpoint that the entry node chose. Other pairs are for the agent and go on.
 */

/** Longest metadata that is looked into, characters. A session id has at most 260. */
const MAX_META = 1024;
const SESSION_ID = /^[A-Za-z0-9._:@-]{1,128}\/[A-Za-z0-9._:@-]{1,128}\/\d{1,2}$/;
const EPOCH = /^\d{1,16}$/;

export interface RelayMeta {
  /** The exact session that is meant; undefined leaves the choice to the node. */
  readonly endpoint: SessionRef | undefined;
  /** The metadata without what is for the relay. */
  readonly rest: string;
}

/** @param meta the metadata of the request, often '' */
export function withEndpoint(meta: string, { id, epoch }: SessionRef): string {
  const own = `session=${id} epoch=${epoch}`;
  return meta === '' ? own : `${own} ${meta}`;
}

/** @throws CulvertError `invalid_frame` when the metadata is too long or names no possible session */
export function takeEndpoint(meta: string): RelayMeta {
  if (meta === '') return { endpoint: undefined, rest: '' };
  if (meta.length > MAX_META) {
    throw new CulvertError('invalid_frame', `the metadata has ${meta.length} characters, above ${MAX_META}`);
  }
  let id: string | undefined;
  let epoch: string | undefined;
  const rest: string[] = [];
  for (const pair of meta.split(' ')) {
    if (pair.startsWith('session=')) id = pair.slice(8);
    else if (pair.startsWith('epoch=')) epoch = pair.slice(6);
    else rest.push(pair);
  }
  if (id === undefined && epoch === undefined) return { endpoint: undefined, rest: meta };
  const number = Number(epoch);
  if (
    id === undefined ||
    epoch === undefined ||
    !SESSION_ID.test(id) ||
    !EPOCH.test(epoch) ||
    !Number.isSafeInteger(number)
  ) {
    throw new CulvertError('invalid_frame', 'the metadata names no possible session');
  }
  return { endpoint: { id: id as SessionId, epoch: number }, rest: rest.join(' ') };
}
