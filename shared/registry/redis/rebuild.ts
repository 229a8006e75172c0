import type { Logger } from '../../observability/logger.ts';
import { encodePolicy } from '../../policy/tunnel-policy.ts';
import { stringAt } from '../../redis/script-set.ts';
import type { SessionRef } from '../registry.ts';
import { shardOf } from './keys.ts';
import type { Membership } from './membership.ts';
import type { Owned, OwnedSession, OwnedTunnel } from './owned.ts';
import { type StoredEndpoint, storedSession } from './records.ts';
import type { Replica } from './replica.ts';
import type { Scripts } from './scripts.ts';
import type { Withdrawal } from './withdrawal.ts';

/** Sessions that are published again at the same time. */
const CONCURRENCY = 64;

export interface RebuildOptions {
  readonly nodeId: string;
  readonly scripts: Scripts;
  readonly owned: Owned;
  readonly replica: Replica;
  readonly membership: Membership;
  readonly withdrawal: Withdrawal;
  /** True while a claim of this session is under way. */
  readonly isOpening: (session: SessionRef) => boolean;
  /** The store has a newer session of this id, or another account's. */
  readonly onLost: (session: OwnedSession) => void;
  readonly log: Logger;
}

/** Makes the store agree with what this node holds: publishes what it lacks, takes out what this node does not have. */
export class Rebuild {
  readonly #options: RebuildOptions;
  #due = false;
  #auditDue = false;
  #running: Promise<void> | undefined;

  constructor(options: RebuildOptions) {
    this.#options = options;
  }

  /** Everything this node holds is to be published again, or what belongs to one shard. */
  require(shard?: number): void {
    for (const session of this.#options.owned.values()) {
      const { agentId, accountId } = session.record;
      const touched = shard === undefined || shard === shardOf(agentId) || shard === shardOf(accountId);
      if (touched) session.due = true;
      for (const [name, tunnel] of session.tunnels) {
        // The account's count of names lies with the account, so it needs every name of it again.
        if (touched || shard === shardOf(name)) tunnel.due = true;
      }
    }
    this.#due = true;
    this.#auditDue = true;
  }

  /** The store may have something of this node that the node does not have: a write had no answer. */
  requireAudit(): void {
    this.#auditDue = true;
  }

  /** Does what is due. What fails stays due. @throws what Redis threw */
  async run(settled: boolean): Promise<void> {
    this.#running ??= this.#run(settled).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #run(settled: boolean): Promise<void> {
    if (this.#due) {
      this.#due = false;
      try {
        await this.#restoreAll();
      } catch (error) {
        this.#due = true;
        throw error;
      }
    }
    if (this.#auditDue && settled) {
      this.#auditDue = false;
      try {
        await this.#audit();
      } catch (error) {
        this.#auditDue = true;
        throw error;
      }
    }
  }

  async #restoreAll(): Promise<void> {
    const sessions = this.#options.owned.values()[Symbol.iterator]();
    const worker = async (): Promise<void> => {
      for (let next = sessions.next(); !next.done; next = sessions.next()) {
        const session = next.value;
        session.restoring = this.#restore(session).finally(() => {
          session.restoring = undefined;
        });
        await session.restoring;
      }
    };
    const done = await Promise.allSettled(Array.from({ length: CONCURRENCY }, worker));
    for (const result of done) if (result.status === 'rejected') throw result.reason;
  }

  async #restore(session: OwnedSession): Promise<void> {
    const { scripts, nodeId, membership, onLost } = this.#options;
    const { record } = session;
    if (session.due) {
      session.due = false;
      try {
        const stored = storedSession(record, nodeId, membership.incarnation);
        const owned = await scripts.own(record.agentId, record.id, record.accountId, 0, record.epoch);
        const opened = await scripts.open(record.id, stored, undefined);
        if (stringAt(owned, 0) === 'taken' || ['taken', 'older'].includes(stringAt(opened, 0))) {
          onLost(session);
          return;
        }
      } catch (error) {
        session.due = true;
        throw error;
      }
    }
    await Promise.all(Array.from(session.tunnels, ([name, tunnel]) => this.#restoreTunnel(session, name, tunnel)));
  }

  async #restoreTunnel({ record }: OwnedSession, name: string, tunnel: OwnedTunnel): Promise<void> {
    if (!tunnel.due || tunnel.createdAt === undefined) return;
    const { scripts, nodeId, membership, log } = this.#options;
    tunnel.due = false;
    try {
      const endpoint = endpointFor(record, tunnel.claim, nodeId, membership.incarnation);
      const claimed = stringAt(await scripts.claim(name, record.accountId, endpoint, tunnel.createdAt), 0);
      if (claimed === 'ok') {
        await scripts.reserve(record.accountId, record, name, undefined);
      } else if (claimed === 'taken') {
        // An old snapshot can name an owner of the past, whose node takes it out: try again.
        this.#due = tunnel.due = true;
        log.warn({ tunnel: name, session: record.id }, 'the name of a running tunnel belongs to another account');
      }
    } catch (error) {
      tunnel.due = true;
      throw error;
    }
  }

  async #audit(): Promise<void> {
    const { replica, owned, nodeId, withdrawal, isOpening } = this.#options;
    for (const session of replica.sessions.by(nodeId)) {
      if (owned.get(session) === undefined && !isOpening(session)) {
        await withdrawal.close(session.accountId, session, []);
      }
    }
    for (const { name, session } of replica.endpointsBy(nodeId)) {
      const mine = owned.get(session);
      if (mine?.tunnels.has(name) || owned.hasNewer(session) || isOpening(session)) continue;
      await withdrawal.release(name, session, mine === undefined);
      if (mine !== undefined) await this.#options.scripts.drop(mine.record.accountId, session, [name]);
    }
  }
}

export function endpointFor(
  record: OwnedSession['record'],
  claim: OwnedTunnel['claim'],
  by: string,
  incarnation: number,
): StoredEndpoint {
  return {
    s: record.id,
    p: record.epoch,
    n: record.nodeId,
    b: by,
    i: incarnation,
    g: record.agentId,
    l: claim.localAddr,
    h: claim.healthy,
    ...(claim.policy === undefined ? {} : { y: encodePolicy(claim.policy) }),
  };
}
