/** Small pieces are joined once there are so many of them: an object costs more than its bytes then. */
const MAX_PIECES = 64;
/** Joined pieces are handed on from here, bytes. */
const FLUSH_BYTES = 64 * 1024;

/**
 * Response bytes that came while the visitor's connection takes none. Each piece that node:http queues costs some 160 bytes
 * besides its own (measured), so an agent that sends single bytes could make a budget of bytes worthless: they are gathered.
 */
export class BlockedBody {
  #pieces: Buffer[] = [];
  #bytes = 0;

  /** Takes a piece. Returns what is to be written now, when enough came together. */
  add(piece: Buffer): Buffer | undefined {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes >= FLUSH_BYTES) return this.take();
    if (this.#pieces.length >= MAX_PIECES) this.#pieces = [Buffer.concat(this.#pieces)];
    return undefined;
  }

  /** What waits, if anything does. */
  take(): Buffer | undefined {
    if (this.#bytes === 0) return undefined;
    const [first] = this.#pieces;
    const all = this.#pieces.length === 1 && first !== undefined ? first : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#bytes = 0;
    return all;
  }
}
