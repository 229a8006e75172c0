import type { ByteBudget } from '../../../shared/protocol/budget.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { Stream } from '../../../shared/protocol/stream-types.ts';

/** Bytes of a request body that are kept for another endpoint. A longer body goes to one endpoint only. */
const MAX_KEPT = 64 * 1024;

/** What of a request's body has been sent, kept until an endpoint answers, so that another can be asked instead. */
export class SentBody {
  readonly #budget: ByteBudget;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #isWhole = true;
  #end: { readonly trailers: FlatHeaders | undefined } | undefined;

  /** @param budget what the process may hold */
  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** Whether all that was sent is still here. */
  get isWhole(): boolean {
    return this.#isWhole;
  }

  add(chunk: Buffer): void {
    if (!this.#isWhole) return;
    this.#bytes += chunk.length;
    this.#chunks.push(chunk);
    const fits = this.#budget.hold(chunk.length);
    if (!fits || this.#bytes > MAX_KEPT) this.drop();
  }

  ended(trailers: FlatHeaders | undefined): void {
    this.#end = { trailers };
  }

  /** Sends everything again. @returns whether the stream takes more at once */
  sendTo(stream: Stream): boolean {
    let takesMore = true;
    for (const chunk of this.#chunks) takesMore = stream.write(chunk, false);
    if (this.#end !== undefined) endStream(stream, this.#end.trailers);
    return takesMore;
  }

  /** Keeps nothing from now on. */
  drop(): void {
    this.#isWhole = false;
    this.#budget.free(this.#bytes);
    this.#bytes = 0;
    this.#chunks = [];
  }
}

export function endStream(stream: Stream, trailers: FlatHeaders | undefined): void {
  if (trailers !== undefined && trailers.length > 0) stream.sendTrailers(trailers);
  else stream.end();
}
