import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import { FAIR_DATA_BYTES } from '../../../shared/protocol/frame.ts';
import type { FlatHeaders, RequestHead, ResponseHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink, Upstream } from '../../../shared/protocol/stream-types.ts';

/**
 * Joins a stream that came over a relay link with a new stream to the agent: the last stretch of the one relay hop. Every
 * request that arrives at the wrong node passes through here, so chunks go on as they are and nothing is kept beside the
 * streams' own queues.
 *
 * Credit passes through: bytes from one side count as consumed only once the other side has taken them, so a slow visitor at
 * the entry node holds the service back behind the agent, and each stretch in between holds one window at most.
 * @returns the sink of `link`
 * @throws CulvertError when no stream can be opened; `not_processed` where another node or session may be tried
 */
export function bridge(
  link: Stream,
  upstream: Upstream,
  head: RequestHead,
  body: Buffer | undefined,
  end: boolean,
): StreamSink {
  const request = new Direction(link, true);
  const answer = new Direction(undefined, false);
  // A large first piece takes the way that can push back.
  const withHead = body === undefined || body.length <= FAIR_DATA_BYTES;
  const agent = open(upstream, head, withHead ? body : undefined, end && withHead, answer);
  request.join(agent, answer);
  answer.join(link, request);
  answer.from = agent;
  if (body !== undefined) {
    if (withHead) link.consumed(body.length);
    else request.onData(body, end);
  }
  return request;
}

function open(upstream: Upstream, head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream {
  try {
    return upstream.open(head, body, end, sink);
  } catch (error) {
    // At its stream limit the session has taken nothing. As a reset, `overloaded` can mean a stream that was cut off halfway,
    // so the entry node may only try elsewhere when it is told what is certain here.
    if (error instanceof CulvertError && error.code === 'overloaded') {
      throw new CulvertError('not_processed', error.message, { cause: error });
    }
    throw error;
  }
}

/** Takes what comes from one stream to the other. */
class Direction implements StreamSink {
  /** Where the bytes come from. */
  from: Stream | undefined;
  readonly #isRequest: boolean;
  #to: Stream | undefined;
  #opposite: Direction | undefined;
  /** Bytes that `#to` took into a queue that is too long: their credit waits for it to get shorter. */
  #owed = 0;
  #ended = false;

  constructor(from: Stream | undefined, isRequest: boolean) {
    this.from = from;
    this.#isRequest = isRequest;
  }

  join(to: Stream, opposite: Direction): void {
    this.#to = to;
    this.#opposite = opposite;
  }

  onHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void {
    if (end) this.#ended = true;
    const goOn = this.#to?.sendHead(head, body, end) ?? true;
    if (body !== undefined) this.#account(body.length, goOn);
  }

  onData(chunk: Buffer, end: boolean): void {
    if (end) this.#ended = true;
    const goOn = this.#to?.write(chunk, end) ?? true;
    this.#account(chunk.length, goOn);
  }

  onTrailers(headers: FlatHeaders): void {
    this.#ended = true;
    this.#to?.sendTrailers(headers);
  }

  /** `from` takes more: that is where the opposite direction goes to. */
  onWritable(): void {
    this.#opposite?.release();
  }

  onClose(code: ErrorCode | undefined, message: string): void {
    if (code !== undefined) {
      this.#to?.reset(code, message);
    } else if (!this.#isRequest) {
      // Clean, and perhaps before the end of the request: the agent does not want the rest of it.
      this.#to?.finish();
    } else if (this.#opposite?.hasEnded !== true) {
      this.#to?.reset('canceled', 'the entry node closed the stream before the answer was complete');
    }
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  release(): void {
    const bytes = this.#owed;
    this.#owed = 0;
    if (bytes > 0) this.from?.consumed(bytes);
  }

  #account(bytes: number, goOn: boolean): void {
    if (bytes === 0) return;
    if (goOn && this.#owed === 0) this.from?.consumed(bytes);
    else this.#owed += bytes;
  }
}
