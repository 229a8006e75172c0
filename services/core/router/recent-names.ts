/** Names in one generation; the set holds two at most. */
const GENERATION = 10_000;

/**
 * The tunnels that lost their last endpoint lately: their visitors are told that the agent is away, not that there is no such
 * tunnel. Bounded: when a generation is full, the one before it is forgotten.
 */
export class RecentNames {
  #young = new Set<string>();
  #old = new Set<string>();

  has(name: string): boolean {
    return this.#young.has(name) || this.#old.has(name);
  }

  add(name: string): void {
    this.#young.add(name);
    if (this.#young.size < GENERATION) return;
    this.#old = this.#young;
    this.#young = new Set();
  }

  /** The tunnel is there again. */
  delete(name: string): void {
    this.#young.delete(name);
    this.#old.delete(name);
  }
}
