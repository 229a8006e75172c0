import { numberAt, pairsAt } from '../../redis/script-set.ts';
import type { EventFeed } from '../event-feed.ts';
import type { NodeId, NodeInfo, NodeRecord, RegistryEvent } from '../registry.ts';
import { type LeaseRecord, nodeJson, parseLease } from './records.ts';
import type { Replica } from './replica.ts';
import type { Scripts } from './scripts.ts';

/** What the last renewal told, for the janitor. */
export interface Renewal {
  /** Redis' time, milliseconds. */
  readonly now: number;
  /** For so long somebody renewed a lease without a gap, milliseconds: a lease that ran out counts only then. */
  readonly steady: number;
  readonly leads: boolean;
  readonly leases: readonly LeaseRecord[];
  /** Node id and `incarnation:since` of the incarnations that were declared dead. */
  readonly dead: readonly (readonly [string, string])[];
  /** Redis had no lease of this node, so it has nothing else of it for certain. */
  readonly wasUnknown: boolean;
}

/** This node's lease and what is known of the other nodes'. */
export class Membership {
  readonly #nodeId: NodeId;
  readonly #lease: number;
  readonly #scripts: Scripts;
  readonly #replica: Replica;
  readonly #feed: EventFeed<RegistryEvent>;
  #incarnation = 0;
  /** Of this process. What is below it was left by an earlier process; what is not is served here, whatever Redis says. */
  #first = 0;
  #info: NodeInfo | undefined;
  #draining = false;
  #changed = false;
  #members = new Map<NodeId, NodeRecord>();
  /** Nodes with endpoints but without a lease at the last look: an event may overtake the answer that names its node. */
  #absent = new Set<string>();
  #soonest = 0;

  constructor(nodeId: NodeId, lease: number, scripts: Scripts, replica: Replica, feed: EventFeed<RegistryEvent>) {
    this.#nodeId = nodeId;
    this.#lease = lease;
    this.#scripts = scripts;
    this.#replica = replica;
    this.#feed = feed;
  }

  /** Of this process's life on the node; 0 before the first renewal. */
  get incarnation(): number {
    return this.#incarnation;
  }

  get members(): readonly NodeRecord[] {
    return [...this.#members.values()];
  }

  get isMember(): boolean {
    return this.#info !== undefined;
  }

  setInfo(info: NodeInfo | undefined): void {
    this.#info = info;
    this.#changed = true;
  }

  setDraining(draining: boolean): void {
    this.#changed ||= this.#draining !== draining;
    this.#draining = draining;
  }

  /** Milliseconds until the next renewal: a third of the lease, or sooner when another node's lease runs out before. */
  get pause(): number {
    return Math.max(20, Math.min(this.#lease / 3, this.#soonest));
  }

  /** @throws what Redis threw */
  async renew(sessions: number): Promise<Renewal> {
    const changed = this.#changed;
    this.#changed = false;
    const info =
      this.#info === undefined ? '' : nodeJson({ ...this.#info, state: this.#draining ? 'draining' : 'up', sessions });
    const reply = await this.#scripts.beat(this.#nodeId, this.#incarnation, info, changed).catch((error) => {
      this.#changed ||= changed;
      throw error;
    });
    const renewal: Renewal = {
      now: numberAt(reply, 0),
      steady: numberAt(reply, 1),
      wasUnknown: numberAt(reply, 3) === 1,
      leads: numberAt(reply, 4) === 1,
      leases: pairsAt(reply, 5).map(([id, json]) => parseLease(id, json)),
      dead: pairsAt(reply, 6),
    };
    this.#incarnation = numberAt(reply, 2);
    if (this.#first === 0) this.#first = this.#incarnation;
    this.#update(renewal);
    return renewal;
  }

  /** @throws what Redis threw */
  async leave(): Promise<void> {
    this.#info = undefined;
    if (this.#incarnation !== 0) await this.#scripts.leave(this.#nodeId, this.#incarnation);
    this.#incarnation = 0;
  }

  #update({ now, steady, leases }: Renewal): void {
    // Loss of Redis is no evidence that a peer is dead: after it, everybody gets a lease to renew.
    const evident = steady >= this.#lease;
    const seen = new Set<string>();
    const members = new Map<NodeId, NodeRecord>();
    let soonest = Number.POSITIVE_INFINITY;
    for (const { nodeId, incarnation, expiresAt, node } of leases) {
      seen.add(nodeId);
      const own = nodeId === this.#nodeId;
      const expired = !own && expiresAt <= now;
      if (expired && !evident) soonest = Math.min(soonest, this.#lease - steady + 1);
      else if (!expired && !own) soonest = Math.min(soonest, expiresAt - now + 1);
      this.#replica.setAlive(nodeId, own ? this.#first : expired && evident ? incarnation + 1 : incarnation);
      if (node !== undefined && !(expired && evident)) members.set(nodeId, node);
    }
    this.#soonest = soonest;
    const absent = new Set([...this.#replica.owningNodes()].filter((nodeId) => !seen.has(nodeId)));
    for (const nodeId of absent) {
      if (evident && this.#absent.has(nodeId)) this.#replica.setAlive(nodeId, Number.POSITIVE_INFINITY);
    }
    this.#absent = absent;
    if (!evident) for (const [nodeId, node] of this.#members) if (!members.has(nodeId)) members.set(nodeId, node);
    this.#publish(members);
  }

  #publish(members: Map<NodeId, NodeRecord>): void {
    const before = this.#members;
    this.#members = members;
    for (const [nodeId, node] of members) {
      const old = before.get(nodeId);
      if (old === undefined || nodeJson({ ...old, sessions: 0 }) !== nodeJson({ ...node, sessions: 0 })) {
        this.#feed.publish({ type: 'node', nodeId, node });
      }
    }
    for (const nodeId of before.keys()) {
      if (!members.has(nodeId)) this.#feed.publish({ type: 'node', nodeId, node: undefined });
    }
  }
}
