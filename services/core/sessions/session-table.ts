import type { SessionFigures } from '../../../shared/control/figures.ts';
import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { Upstream } from '../../../shared/protocol/stream-types.ts';
import { type NodeId, processOf, type SessionId, type SessionRef } from '../../../shared/registry/registry.ts';

/** Another node, and how an agent gets there. */
export interface Way {
  readonly nodeId: NodeId;
  /** host:port. Undefined: the address that the agent knows, where a balancer reads `serverName`. */
  readonly address: string | undefined;
  /** Name for SNI. */
  readonly serverName: string | undefined;
}

/** What the table's users see of an agent session. */
export interface HeldSession {
  /** Undefined until the agent has proved who it is. */
  readonly ref: SessionRef | undefined;
  readonly accountId: string;
  /** It was told to go. */
  readonly isLeaving: boolean;
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
  /** The node to connect to instead. */
  readonly next?: Way | undefined;
  /** Takes new streams until the agent has its next session. Default false: none, and the end when the last is done. */
  readonly keepServing?: boolean;
}

/** The agent sessions that this node holds, by id. Holds the newest epoch of each. */
export class SessionTable {
  readonly #sessions = new Map<SessionId, HeldSession>();
  /** Replaced, but routed to until the newer session has registered their tunnels; by id and epoch. */
  readonly #replaced = new Map<string, HeldSession>();
  readonly #perAccount = new Map<string, number>();
  /** How many that have, or are about to have, each id; by process. */
  readonly #processes = new Map<string, Map<SessionId, number>>();
  /** Of sessions that are about to be here. */
  readonly #expected = new Map<SessionId, number>();

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

  /**
   * Says that a session with this id is about to be here, until the returned function is called: of two of one process that
   * come at the same time each must see the other.
   */
  expect(id: SessionId): () => void {
    count(this.#expected, id, 1);
    this.#countId(id, 1);
    return () => {
      count(this.#expected, id, -1);
      this.#countId(id, -1);
    };
  }

  /** Whether another session of the same process is here to stay, or about to be. */
  hasSibling(id: SessionId): boolean {
    for (const other of this.#processes.get(processOf(id))?.keys() ?? []) {
      if (other === id) continue;
      if (this.#expected.has(other) || this.#sessions.get(other)?.isLeaving === false) return true;
    }
    return false;
  }

  add(session: HeldSession, ref: SessionRef, accountId: string): void {
    const older = this.#sessions.get(ref.id);
    if (older === undefined) this.#countId(ref.id, 1);
    else count(this.#perAccount, older.accountId, -1);
    if (older?.ref !== undefined) this.#replaced.set(exactly(older.ref), older);
    this.#sessions.set(ref.id, session);
    count(this.#perAccount, accountId, 1);
  }

  /** Does nothing when another session has taken the place. */
  remove(session: HeldSession, ref: SessionRef): void {
    this.#replaced.delete(exactly(ref));
    if (this.#sessions.get(ref.id) !== session) return;
    this.#sessions.delete(ref.id);
    this.#countId(ref.id, -1);
    count(this.#perAccount, session.accountId, -1);
  }

  #countId(id: SessionId, change: number): void {
    const process = processOf(id);
    const ids = this.#processes.get(process) ?? new Map<SessionId, number>();
    count(ids, id, change);
    if (ids.size > 0) this.#processes.set(process, ids);
    else this.#processes.delete(process);
  }
}

/** Counts keys; one that is at zero takes no memory. */
function count<K>(counts: Map<K, number>, key: K, change: number): void {
  const now = (counts.get(key) ?? 0) + change;
  if (now > 0) counts.set(key, now);
  else counts.delete(key);
}

function exactly(ref: SessionRef): string {
  return `${ref.id}@${ref.epoch}`;
}
