/** The part of hashring 3 that placement uses; the package has no types of its own. */
declare module 'hashring' {
  class HashRing {
    /**
     * @param servers `vnodes`: hashes for this server; each gives four points
     * @param algorithm of node:crypto, at least 128 bits
     */
    constructor(
      servers: Readonly<Record<string, { readonly vnodes: number }>>,
      algorithm: string,
      options: { readonly 'vnode count': number; readonly 'max cache size': number },
    );
    /** Distinct servers in the order in which the ring has them from the key's point on. */
    range(key: string, size: number, unique: true): string[];
  }
  export = HashRing;
}
