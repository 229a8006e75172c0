import {
  CALLS,
  type CallAnswer,
  type CallArguments,
  type CallName,
  isCallName,
} from '../../../shared/control/calls.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import type { RequestHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink } from '../../../shared/protocol/stream-types.ts';
import { CallBody, MAX_ANSWER_BYTES, MAX_ARGUMENT_BYTES } from './call-body.ts';

/** What the node does for each call. A CulvertError is answered as it is. */
export type CallHandlers = {
  readonly [N in CallName]: (args: CallArguments<N>) => CallAnswer<N> | Promise<CallAnswer<N>>;
};

/** Calls that are answered at a time, for all links. */
const MAX_CALLS = 32;

/** Answers the calls of other nodes, and of this node itself. */
export class CallServer {
  readonly #handlers: CallHandlers;
  readonly #log: Logger;
  #running = 0;

  constructor(handlers: CallHandlers, log: Logger) {
    this.#handlers = handlers;
    this.#log = log;
  }

  /** @throws CulvertError of the handler */
  async answer<N extends CallName>(name: N, args: CallArguments<N>): Promise<CallAnswer<N>> {
    return this.#handlers[name](args);
  }

  /**
   * Takes a call that came over a relay link. @param peer the node that calls
   * @throws CulvertError `not_found`, which resets the stream, for a call that this version does not know
   */
  accept(peer: string, stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean): StreamSink {
    const name = head.target.slice(1);
    if (head.method !== 'CALL' || !isCallName(name)) {
      throw new CulvertError('not_found', `this node knows no call ${head.method} ${head.target}`);
    }
    const sink = new ArgumentSink(stream, (json) => void this.#run(peer, name, stream, json));
    sink.take(body, end);
    return sink;
  }

  async #run(peer: string, name: CallName, stream: Stream, json: unknown): Promise<void> {
    this.#running += 1;
    try {
      if (this.#running > MAX_CALLS) throw new CulvertError('overloaded', `${MAX_CALLS} calls are being answered`);
      send(stream, 200, await this.#answerJson(name, json));
    } catch (error) {
      if (!(error instanceof CulvertError)) this.#log.error({ err: error, peer, call: name }, 'a cluster call failed');
      const known =
        error instanceof CulvertError ? error : new CulvertError('internal_error', 'the node failed to answer');
      const text = JSON.stringify({ code: known.code, message: known.message.slice(0, 1024) });
      send(stream, known.status, Buffer.from(text));
    } finally {
      this.#running -= 1;
    }
  }

  async #answerJson<N extends CallName>(name: N, json: unknown): Promise<Buffer> {
    const parsed = CALLS[name].arguments.safeParse(json);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      throw new CulvertError('bad_request', `${name}: ${issue?.path.join('.') || 'arguments'}: ${issue?.message}`);
    }
    // The schema of this very call has passed them; TypeScript does not join the two uses of N.
    const answer = await this.answer(name, parsed.data as CallArguments<N>);
    const bytes = Buffer.from(JSON.stringify(answer));
    if (bytes.length > MAX_ANSWER_BYTES) {
      throw new CulvertError('body_too_large', `${name}: the answer has ${bytes.length} bytes: ask for less`);
    }
    return bytes;
  }
}

/** A caller that gave up has reset the stream: sending is then without effect. */
function send(stream: Stream, status: number, body: Buffer): void {
  stream.sendHead({ status, reason: '', headers: [] }, undefined, false);
  stream.write(body, true);
}

class ArgumentSink implements StreamSink {
  readonly #stream: Stream;
  readonly #onComplete: (json: unknown) => void;
  readonly #body = new CallBody(MAX_ARGUMENT_BYTES);

  constructor(stream: Stream, onComplete: (json: unknown) => void) {
    this.#stream = stream;
    this.#onComplete = onComplete;
  }

  take(chunk: Buffer | undefined, end: boolean): void {
    try {
      this.#body.add(chunk);
      this.#stream.consumed(chunk?.length ?? 0);
      if (end) this.#onComplete(this.#body.json());
    } catch (error) {
      const known = error instanceof CulvertError ? error : new CulvertError('internal_error', String(error));
      this.#stream.reset(known.code, known.message);
    }
  }

  onHead(): void {}

  onData(chunk: Buffer, end: boolean): void {
    this.take(chunk, end);
  }

  onTrailers(): void {
    this.#stream.reset('invalid_frame', 'a call has no trailers');
  }

  onWritable(): void {}

  onClose(): void {}
}
