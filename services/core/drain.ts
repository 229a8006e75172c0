import { CulvertError } from '../../shared/errors/codes.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import type { Cluster } from './cluster.ts';
import type { AgentListener } from './sessions/agent-listener.ts';

export interface DrainOptions {
  readonly log: Logger;
  readonly cluster: () => Cluster | undefined;
  readonly agents: () => AgentListener | undefined;
  /** Milliseconds for the streams of sessions that are told to go, unless said otherwise. */
  readonly timeout: number;
}

/**
 * Takes a node out of use step by step, to end it (`leave`) or while it runs on (`start`, until `undo`): readiness says no, the
 * other nodes place no agents here any more, and the agents that are here move to their next node, make-before-break. Visitors
 * and requests from other nodes are served all the time.
 */
export class Drain {
  readonly #options: DrainOptions;
  #isDraining = false;
  #isLeaving = false;
  #isIsolated = false;
  /** The steps of one change must not mix with those of another. */
  #changes: Promise<unknown> = Promise.resolve();

  constructor(options: DrainOptions) {
    this.#options = options;
  }

  /** Whether the node takes no new agents. Readiness follows it at once. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /** Whether this node alone is cut off from the registry. */
  get isIsolated(): boolean {
    return this.#isIsolated;
  }

  /** The agents go where others route to them, and are let in again when this node has its place back. */
  setIsolated(isIsolated: boolean): void {
    this.#isIsolated = isIsolated;
    // A node that drains has told its agents already, and lets none in when it is reconnected.
    if (this.#isDraining) return;
    if (isIsolated) this.#sendAway(this.#options.timeout);
    else this.#options.agents()?.resume();
  }

  /**
   * Resolves when the others know and the agents have been told. Does nothing when it is draining already.
   * @param deadline milliseconds for streams on the sessions that are told to go. Default the configured drain timeout
   * @throws CulvertError `no_other_node` when the agents would have nowhere to go, `registry_unavailable` when the others
   * cannot be told, `node_draining` when the node is about to end; it is then as it was before
   */
  start(deadline = this.#options.timeout): Promise<void> {
    return this.#oneByOne(async () => {
      if (this.#isDraining) return;
      const cluster = this.#clusterWithOthers();
      this.#isDraining = true;
      try {
        await cluster.setDraining(true);
        // The answer brought the newest state of the others: two that are drained at once both see it here.
        this.#clusterWithOthers();
      } catch (error) {
        if (!this.#isLeaving) await this.#takeBack();
        throw error;
      }
      this.#options.log.warn({ deadline }, 'node is drained: it takes no agents until that is undone');
      this.#sendAway(deadline);
    });
  }

  /**
   * Takes agents again. Those that were told to go and are still here go all the same.
   * @throws CulvertError `node_draining` when the node is about to end
   */
  undo(): Promise<void> {
    return this.#oneByOne(async () => {
      if (!this.#isDraining) return;
      await this.#takeBack();
      this.#options.log.warn('node takes agents again');
    });
  }

  /**
   * The same steps as `start`, before the node ends: nothing stops them, and they are not undone. Without other nodes the agents
   * stay, since the visitors' requests need them.
   * @returns whether there are other nodes, to which the agents are on their way
   */
  async leave(deadline: number): Promise<boolean> {
    this.#isLeaving = true;
    this.#isDraining = true;
    const cluster = this.#options.cluster();
    if (cluster?.hasOthers !== true) return false;
    try {
      await cluster.setDraining(true);
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the other nodes could not be told that this one is draining');
    }
    this.#sendAway(deadline);
    return true;
  }

  async #takeBack(): Promise<void> {
    try {
      await this.#options.cluster()?.setDraining(false);
    } catch (error) {
      // The next renewal of the lease tells them.
      this.#options.log.warn({ err: error }, 'the other nodes could not be told that this one takes agents again');
    }
    if (this.#isLeaving) throw leaving();
    this.#isDraining = false;
    if (!this.#isIsolated) this.#options.agents()?.resume();
  }

  #sendAway(deadline: number): void {
    const cluster = this.#options.cluster();
    this.#options.agents()?.drain(deadline, (session) => cluster?.placement.nextFor(session));
  }

  #clusterWithOthers(): Cluster {
    const cluster = this.#options.cluster();
    if (cluster?.hasOthers === true) return cluster;
    throw new CulvertError('no_other_node');
  }

  #oneByOne(change: () => Promise<void>): Promise<void> {
    const done = this.#changes.then(() => {
      if (this.#isLeaving) throw leaving();
      return change();
    });
    this.#changes = done.catch(() => {});
    return done;
  }
}

function leaving(): CulvertError {
  return new CulvertError('node_draining', 'the node is about to end');
}
