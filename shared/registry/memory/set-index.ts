/** From a key to a set of values; a key without values takes no memory. */
export class SetIndex<V> {
  readonly #sets = new Map<string, Set<V>>();

  add(key: string, value: V): void {
    const set = this.#sets.get(key);
    if (set === undefined) this.#sets.set(key, new Set([value]));
    else set.add(value);
  }

  remove(key: string, value: V): void {
    const set = this.#sets.get(key);
    if (set?.delete(value) && set.size === 0) this.#sets.delete(key);
  }

  size(key: string): number {
    return this.#sets.get(key)?.size ?? 0;
  }

  get(key: string): Iterable<V> {
    return this.#sets.get(key) ?? [];
  }
}
