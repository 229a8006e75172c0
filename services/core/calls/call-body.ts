import { CulvertError } from '../../../shared/errors/codes.ts';

/** Largest arguments of a call, bytes. */
export const MAX_ARGUMENT_BYTES = 64 * 1024;
/** Largest answer, bytes: the figures of 2,000 sessions have about 700 KB. */
export const MAX_ANSWER_BYTES = 4 * 1024 * 1024;

/** Gathers the body of a call or of its answer, up to a limit. */
export class CallBody {
  readonly #limit: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;

  /** @param limit bytes */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @throws CulvertError `body_too_large` */
  add(chunk: Buffer | undefined): void {
    if (chunk === undefined || chunk.length === 0) return;
    this.#bytes += chunk.length;
    if (this.#bytes > this.#limit) {
      throw new CulvertError('body_too_large', `a call or its answer is larger than ${this.#limit} bytes`);
    }
    this.#chunks.push(chunk);
  }

  /** @throws CulvertError `invalid_frame` when it is not JSON */
  json(): unknown {
    try {
      return JSON.parse(Buffer.concat(this.#chunks).toString('utf8'));
    } catch {
      throw new CulvertError('invalid_frame', 'the body of a call or its answer is not JSON');
    }
  }
}
