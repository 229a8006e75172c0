import type { SessionFigures } from '../../../shared/control/figures.ts';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { Upstream } from '../../../shared/protocol/stream-types.ts';
import type { SessionId, SessionRef } from '../../../shared/registry/registry.ts';

/** What the table's users see of an agent session. */
export interface HeldSession {
  /** Undefined until the agent has proved who it is. */
  readonly ref: SessionRef | undefined;
  readonly accountId: string;
  /** Where requests for this agent go. */
  readonly upstream: Upstream;
  readonly agentId: string;
  /** Undefined until the agent has proved who it is. */
  readonly figures: SessionFigures | undefined;
  /** Ends it now; what is in flight is cut off. */
  close(code: ErrorCode | undefined, message: string): void;
  /** Tells the agent to connect anew. @param deadline milliseconds for the open streams */
  drain(reason: string, deadline: number, options?: DrainOptions): void;
}

export interface DrainOptions {
  /** Why, for the agent's log. */
  readonly code?: ErrorCode;
  /** host:port to connect to instead. */
  readonly reconnectTo?: string | undefined;
  /** Takes new streams until the agent has its next session. Default false: none, and the end when the last is done. */
  readonly keepServing?: boolean;
}

/** The agent sessions that this node holds, by id. Holds the newest epoch of each. */
export class SessionTable {
  readonly #sessions = new Map<SessionId, HeldSession>();
  /** Replaced, but routed to until the newer session has registered their tunnels; by id and epoch. */
  readonly #replaced = new Map<string, HeldSession>();
  readonly #perAccount = new Map<string, number>();

  get size(): number {
    return this.#sessions.size;
  }

  /** Sessions per account, for metrics. */
  get perAccount(): ReadonlyMap<string, number> {
    return this.#perAccount;
  }

  /** The session, if it is this very one and not an older or newer holder of its id. */
  find(ref: SessionRef): HeldSession | undefined {
    const session = this.#sessions.get(ref.id);
    return session?.ref?.epoch === ref.epoch ? session : this.#replaced.get(exactly(ref));
  }

  /** The sessions of these ids, with those that they replaced and that are still there. */
  withIds(ids: ReadonlySet<string>): HeldSession[] {
    const replaced = [...this.#replaced.values()].filter(({ ref }) => ref !== undefined && ids.has(ref.id));
    return [...[...ids].flatMap((id) => this.#sessions.get(id as SessionId) ?? []), ...replaced];
  }

  /** All sessions, those that were replaced and are still there included. */
  all(): HeldSession[] {
    return [...this.#sessions.values(), ...this.#replaced.values()];
  }

  add(session: HeldSession, ref: SessionRef, accountId: string): void {
    const older = this.#sessions.get(ref.id);
    if (older !== undefined) this.#count(older.accountId, -1);
    if (older?.ref !== undefined) this.#replaced.set(exactly(older.ref), older);
    this.#sessions.set(ref.id, session);
    this.#count(accountId, 1);
  }

  /** Does nothing when another session has taken the place. */
  remove(session: HeldSession, ref: SessionRef): void {
    this.#replaced.delete(exactly(ref));
    if (this.#sessions.get(ref.id) !== session) return;
    this.#sessions.delete(ref.id);
    this.#count(session.accountId, -1);
  }

  #count(accountId: string, change: number): void {
    const count = (this.#perAccount.get(accountId) ?? 0) + change;
    if (count > 0) this.#perAccount.set(accountId, count);
    else this.#perAccount.delete(accountId);
  }
}

function exactly(ref: SessionRef): string {
  return `${ref.id}@${ref.epoch}`;
}
