import type { SessionId, SessionRecord, SessionRef, TunnelClaim } from '../registry.ts';

/** A name that a session of this node serves. */
export interface OwnedTunnel {
  claim: TunnelClaim;
  /** Undefined until the store confirmed it: before, nothing may be published again in its name. */
  createdAt: number | undefined;
  /** To be published again. */
  due: boolean;
}

export interface OwnedSession {
  readonly record: SessionRecord;
  readonly tunnels: Map<string, OwnedTunnel>;
  due: boolean;
  /** A newer session took over and the node was told; this one keeps its names until that one has them. */
  isReplaced: boolean;
  /** Publishing again, which closing waits for: it would bring the closed session back. */
  restoring: Promise<void> | undefined;
}

/** What this node claimed, from which the store is rebuilt when its data is lost. */
export class Owned {
  readonly #sessions = new Map<SessionId, OwnedSession>();

  get size(): number {
    return this.#sessions.size;
  }

  add(record: SessionRecord): void {
    this.#sessions.set(record.id, { record, tunnels: new Map(), due: false, isReplaced: false, restoring: undefined });
  }

  /** The session when exactly this epoch of it is owned. */
  get(session: SessionRef): OwnedSession | undefined {
    const owned = this.#sessions.get(session.id);
    return owned?.record.epoch === session.epoch ? owned : undefined;
  }

  /** True when a newer session of this id is owned; it may not have taken over all names yet. */
  hasNewer(session: SessionRef): boolean {
    return (this.#sessions.get(session.id)?.record.epoch ?? 0) > session.epoch;
  }

  delete(session: SessionRef): void {
    if (this.get(session) !== undefined) this.#sessions.delete(session.id);
  }

  values(): Iterable<OwnedSession> {
    return this.#sessions.values();
  }
}
