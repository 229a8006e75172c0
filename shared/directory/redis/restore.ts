import type { RedisClient } from '../../redis/connection.ts';
import { numberAt, stringAt } from '../../redis/script-set.ts';
import { KINDS } from '../records.ts';
import type { DirectoryReplica } from '../replica.ts';
import type { RestoredRecord, Scripts } from './scripts.ts';
import { readAll, type Snapshot } from './snapshot.ts';

/** Records that one script puts back. */
const BATCH = 100;

export interface RestoreOptions {
  readonly client: RedisClient;
  readonly scripts: Scripts;
  readonly replica: DirectoryReplica;
  /** This process. */
  readonly by: string;
}

/**
 * Puts back what Redis lost and this node holds. The node that knows most comes last, see `offer.lua`.
 * @param version up to which the node's records are complete
 * @returns records that were put back or taken out; `older` when nothing that this node knows is missing; `busy` when another
 * node is at it, so that this one has to ask again
 * @throws what Redis threw
 */
export async function restore(options: RestoreOptions, version: number): Promise<number | 'older' | 'busy'> {
  const { client, scripts, replica, by } = options;
  const offered = stringAt(await scripts.offer(by, version), 0);
  if (offered !== 'go') return offered === 'older' ? 'older' : 'busy';
  // Read after the offer: from then on no other node that knows less writes.
  const missing = difference(replica, await readAll(client), version);
  let restored = 0;
  for (let at = 0; at < missing.length; at += BATCH) {
    const reply = await scripts.restore(by, version, missing.slice(at, at + BATCH));
    if (stringAt(reply, 0) !== 'ok') return 'busy';
    restored += numberAt(reply, 1);
  }
  const [outcome] = await scripts.restored(by, version);
  return outcome === 'ok' ? restored : 'busy';
}

/** A node whose records are complete up to `version` knows each record that is not newer: present, or removed. */
function difference(replica: DirectoryReplica, there: Snapshot, version: number): RestoredRecord[] {
  const missing: RestoredRecord[] = [];
  for (const kind of KINDS) {
    const here = replica.all(kind);
    for (const [id, stored] of here) {
      if ((there[kind].get(id)?.version ?? -1) < stored.version) missing.push({ kind, id, stored });
    }
    for (const [id, stored] of there[kind]) {
      if (stored.version <= version && !here.has(id)) missing.push({ kind, id, stored: undefined });
    }
  }
  return missing;
}
