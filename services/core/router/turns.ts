/** Names of which it is remembered whose turn it is; beyond it all begin anew. */
const MAX_NAMES = 100_000;

/** Whose turn it is among the endpoints of each round-robin tunnel, on this node. */
export class Turns {
  readonly #next = new Map<string, number>();

  /** The index to begin at. */
  start(name: string, count: number): number {
    return (this.#next.get(name) ?? 0) % count;
  }

  /** The endpoint with this index was used. */
  took(name: string, index: number): void {
    if (this.#next.size >= MAX_NAMES && !this.#next.has(name)) this.#next.clear();
    this.#next.set(name, index + 1);
  }

  drop(name: string): void {
    this.#next.delete(name);
  }
}
