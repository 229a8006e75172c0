import { CALLS, type CallAnswer, type CallArguments, type CallName } from '../../../shared/control/calls.ts';
import { CulvertError, type ErrorCode, isErrorCode } from '../../../shared/errors/codes.ts';
import type { RequestHead, ResponseHead } from '../../../shared/protocol/heads.ts';
import { ErrorMessage } from '../../../shared/protocol/messages.ts';
import type { Stream, StreamSink } from '../../../shared/protocol/stream-types.ts';
import { CallBody, MAX_ANSWER_BYTES } from './call-body.ts';

/** A way to another node that takes calls: its relay link. */
export interface CallLink {
  readonly nodeId: string;
  /** @throws CulvertError `not_processed` when the link is down, `overloaded` when it is full */
  openCall(head: RequestHead, body: Buffer, sink: StreamSink): Stream;
}

/**
 * Asks the node at the other end of the link.
 * @param deadline milliseconds
 * @throws CulvertError as ClusterCalls.call
 */
export async function callPeer<N extends CallName>(
  link: CallLink,
  name: N,
  args: CallArguments<N>,
  deadline: number,
): Promise<CallAnswer<N>> {
  const { nodeId } = link;
  const answer = await new Promise<unknown>((resolve, reject) => {
    const sink = new AnswerSink(nodeId, resolve, reject);
    const head = { method: 'CALL', target: `/${name}`, tunnel: '', meta: '', headers: [] };
    const stream = link.openCall(head, Buffer.from(JSON.stringify(args)), sink);
    const timer = setTimeout(() => {
      reject(new CulvertError('timeout', `node ${nodeId} did not answer within ${deadline} ms`));
      stream.reset('canceled', 'the deadline of the call has passed');
    }, deadline);
    sink.begin(stream, timer);
  });
  const parsed = CALLS[name].answer.safeParse(answer);
  if (!parsed.success) {
    throw new CulvertError('invalid_frame', `node ${nodeId} answered ${name} in another way than this node expects`);
  }
  // The schema of this very call has passed it; TypeScript does not join the two uses of N.
  return parsed.data as CallAnswer<N>;
}

class AnswerSink implements StreamSink {
  readonly #nodeId: string;
  readonly #resolve: (answer: unknown) => void;
  readonly #reject: (error: CulvertError) => void;
  readonly #body = new CallBody(MAX_ANSWER_BYTES);
  #stream: Stream | undefined;
  #timer: NodeJS.Timeout | undefined;
  #status = 0;
  #isComplete = false;

  constructor(nodeId: string, resolve: (answer: unknown) => void, reject: (error: CulvertError) => void) {
    this.#nodeId = nodeId;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(stream: Stream, timer: NodeJS.Timeout): void {
    this.#stream = stream;
    this.#timer = timer;
  }

  onHead({ status }: ResponseHead, body: Buffer | undefined, end: boolean): void {
    this.#status = status;
    this.onData(body ?? Buffer.alloc(0), end);
  }

  onData(chunk: Buffer, end: boolean): void {
    try {
      this.#body.add(chunk);
      this.#stream?.consumed(chunk.length);
      if (end) this.#complete();
    } catch (error) {
      this.#fail(error instanceof CulvertError ? error : new CulvertError('internal_error', String(error)));
    }
  }

  onTrailers(): void {
    this.#fail(new CulvertError('invalid_frame', `node ${this.#nodeId} answered a call with trailers`));
  }

  onWritable(): void {}

  onClose(code: ErrorCode | undefined, message: string): void {
    clearTimeout(this.#timer);
    if (this.#isComplete) return;
    // Without effect when the call has been given up already.
    this.#reject(new CulvertError(code ?? 'connection_closed', `node ${this.#nodeId}: ${message || 'no answer'}`));
  }

  #complete(): void {
    const json = this.#body.json();
    this.#isComplete = true;
    clearTimeout(this.#timer);
    if (this.#status === 200) {
      this.#resolve(json);
      return;
    }
    const error = ErrorMessage.safeParse(json);
    const { code, message } = error.success ? error.data : { code: '', message: `status ${this.#status}` };
    this.#reject(new CulvertError(isErrorCode(code) ? code : 'internal_error', message));
  }

  #fail(error: CulvertError): void {
    this.#reject(error);
    this.#stream?.reset(error.code, error.message);
  }
}
