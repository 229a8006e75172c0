import type { ClusterCalls } from '../../shared/control/calls.ts';
import type { CulvertError } from '../../shared/errors/codes.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import type { NodeId } from '../../shared/registry/registry.ts';

export interface IsolationOptions {
  /** Why the registry cannot be used, as this node sees it; undefined while it can. */
  readonly problem: () => CulvertError | undefined;
  /** The other nodes. */
  readonly peers: () => readonly NodeId[];
  readonly calls: ClusterCalls;
  readonly onChange: (isIsolated: boolean) => void;
  readonly log: Logger;
}

/** Between two looks, milliseconds. */
const TICK = 1000;
/** The registry is away for so long before the others are asked: about the lease, after which they route past this node. */
const AWAY = 4000;

/**
 * Knows whether this node alone is cut off from the registry. A registry that is away for all is no reason to do anything: all
 * serve on. But where the others still reach it they see this node's lease run out and route past it, although it lives, so
 * that an agent whose only session is here would be lost to their visitors.
 */
export class IsolationWatch {
  readonly #options: IsolationOptions;
  readonly #timer: NodeJS.Timeout;
  #awaySince: number | undefined;
  #isIsolated = false;
  #isAsking = false;

  constructor(options: IsolationOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.#look(), TICK);
    this.#timer.unref();
  }

  get isIsolated(): boolean {
    return this.#isIsolated;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  async #look(): Promise<void> {
    if (this.#options.problem() === undefined) {
      this.#awaySince = undefined;
      this.#become(false);
      return;
    }
    const now = performance.now();
    this.#awaySince ??= now;
    if (now - this.#awaySince < AWAY || this.#isAsking) return;
    this.#isAsking = true;
    const others = await this.#othersReachIt();
    this.#isAsking = false;
    // It may have come back while the others were asked.
    this.#become(others && this.#options.problem() !== undefined);
  }

  async #othersReachIt(): Promise<boolean> {
    const { peers, calls } = this.#options;
    const answers = await Promise.allSettled(peers().map((peer) => calls.call(peer, 'inspect', {})));
    return answers.some((answer) => answer.status === 'fulfilled' && answer.value.registry.available);
  }

  #become(isIsolated: boolean): void {
    if (this.#isIsolated === isIsolated) return;
    this.#isIsolated = isIsolated;
    if (isIsolated)
      this.#options.log.warn('only this node is cut off from the registry: its agents are sent to the others');
    else this.#options.log.warn('this node is no longer cut off from the registry alone');
    this.#options.onChange(isIsolated);
  }
}
