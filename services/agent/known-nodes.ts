/** A node that failed is not gone back to for so long, milliseconds; by then the cluster knows what became of it. */
const FAILED_FOR = 10_000;
/** As many as an Auth Request may name. */
const MAX_FAILED = 16;

/** What the slots of one agent process tell each other of the cluster's nodes. */
export class KnownNodes {
  readonly #clock: () => number;
  /** Slot → the node of its session, or the one that it was sent to. */
  readonly #places = new Map<number, string>();
  /** Node → when it failed. */
  readonly #failed = new Map<string, number>();

  /** @param clock milliseconds */
  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock;
  }

  /** Nodes of the other slots. */
  others(slot: number): string[] {
    return [...this.#places].flatMap(([other, nodeId]) => (other === slot ? [] : nodeId));
  }

  /** @param nodeId undefined: on none, or on its way to one that is not known yet */
  place(slot: number, nodeId: string | undefined): void {
    if (nodeId === undefined || nodeId === '') this.#places.delete(slot);
    else this.#places.set(slot, nodeId);
  }

  /** Nodes that failed one of the slots just now, the last one first. */
  get failed(): string[] {
    const since = this.#clock() - FAILED_FOR;
    for (const [nodeId, at] of this.#failed) if (at < since) this.#failed.delete(nodeId);
    return [...this.#failed.keys()].reverse().slice(0, MAX_FAILED);
  }

  /** The session on it ended without a word, or it cannot be reached. */
  hasFailed(nodeId: string | undefined): void {
    if (nodeId === undefined || nodeId === '') return;
    this.#failed.delete(nodeId);
    this.#failed.set(nodeId, this.#clock());
  }

  /** A session on it is up. */
  works(nodeId: string): void {
    this.#failed.delete(nodeId);
  }
}
