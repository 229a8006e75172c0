/**
 * A byte budget with a parent: what a session may hold counts against the process too. Counts bytes that were received
 * and not yet passed on, and the window growth that was promised beyond the initial windows.
 */
export class ByteBudget {
  readonly limit: number;
  /** Called when this budget's holder has to give something up. */
  onShed: (() => void) | undefined;
  readonly #parent: ByteBudget | undefined;
  readonly #children = new Set<ByteBudget>();
  #used = 0;
  #promised = 0;

  /** @param limit bytes, above 0 */
  constructor(limit: number, parent?: ByteBudget) {
    this.limit = limit;
    this.#parent = parent;
    if (parent !== undefined) parent.#children.add(this);
  }

  /** The holder is gone. */
  dispose(): void {
    if (this.#parent !== undefined) this.#parent.#children.delete(this);
  }

  /** Makes room after `hold` returned false: at the level that is over its limit, the one that holds most gives way. */
  relieve(): void {
    if (this.#used > this.limit || this.#parent === undefined) this.onShed?.();
    else this.#parent.#relieveLargest();
  }

  #relieveLargest(): void {
    let largest: ByteBudget | undefined;
    for (const child of this.#children) {
      if (largest === undefined || child.#used > largest.#used) largest = child;
    }
    largest?.onShed?.();
  }

  /** Bytes held now. */
  get used(): number {
    return this.#used;
  }

  /** Window growth promised now, bytes. */
  get promised(): number {
    return this.#promised;
  }

  /** Counts bytes as held. Returns false when this takes the budget, or its parent, over the limit: something must go. */
  hold(bytes: number): boolean {
    this.#used += bytes;
    const fits = this.#used <= this.limit;
    return this.#parent === undefined ? fits : this.#parent.hold(bytes) && fits;
  }

  free(bytes: number): void {
    this.#used -= bytes;
    this.#parent?.free(bytes);
  }

  /** Reserves room for a window to grow. Growth gets at most half of the budget, so that initial windows have room too. */
  promise(bytes: number): boolean {
    if (this.#promised + bytes > this.limit / 2) return false;
    if (this.#parent !== undefined && !this.#parent.promise(bytes)) return false;
    this.#promised += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#promised -= bytes;
    this.#parent?.release(bytes);
  }

  get isOver(): boolean {
    return this.#used > this.limit || (this.#parent?.isOver ?? false);
  }
}
