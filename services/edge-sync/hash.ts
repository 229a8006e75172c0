/** FNV-1a over UTF-16 units, then the finaliser of MurmurHash3, since FNV alone spreads its last characters badly. */
export function hash32(text: string, seed = 0): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Tells two sets of pairs apart, whatever their order. A pair is added and taken away by the same call. */
export class SetDigest {
  #high = 0;
  #low = 0;
  #size = 0;

  add(key: string, value: string): void {
    this.#toggle(key, value);
    this.#size += 1;
  }

  remove(key: string, value: string): void {
    this.#toggle(key, value);
    this.#size -= 1;
  }

  get text(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return `${this.#size}-${hex(this.#high)}${hex(this.#low)}`;
  }

  #toggle(key: string, value: string): void {
    const pair = `${key} ${value}`;
    this.#high ^= hash32(pair);
    this.#low ^= hash32(pair, 0x5bd1e995);
  }
}
