import { Duplex } from 'node:stream';
import { FrameDecoder } from '../decoder.ts';
import { FrameRecorder, type RecordedFrame } from './frame-recorder.ts';

/** The end of a connection whose other end is the test: keeps what is written, and takes it as slowly as the test wants. */
export class CaptureSocket extends Duplex {
  readonly #chunks: Buffer[] = [];
  readonly #delay: () => number;
  /** Turns of the event loop that the slowest write took. */
  pushedBack = 0;

  /**
   * @param delay turns of the event loop until the next write is taken, 0 for at once; Infinity: never
   * @param highWaterMark bytes above which `write` returns false. Default 16 KiB
   */
  constructor(delay: () => number = () => 0, highWaterMark = 16 * 1024) {
    super({ writableHighWaterMark: highWaterMark });
    this.#delay = delay;
  }

  get written(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** Everything written so far as frames. */
  get frames(): RecordedFrame[] {
    const recorder = new FrameRecorder();
    new FrameDecoder(recorder).feed(this.written);
    if (recorder.isIncomplete) throw new Error('the last frame is incomplete');
    return recorder.frames;
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const turns = this.#delay();
    this.pushedBack = Math.max(this.pushedBack, turns);
    if (turns === Number.POSITIVE_INFINITY) return;
    this.#takeAfter(turns, chunk, done);
  }

  /** The bytes are copied only when they are taken: whoever reuses their memory before that is found out. */
  #takeAfter(turns: number, chunk: Buffer, done: () => void): void {
    if (turns > 0) {
      setImmediate(() => this.#takeAfter(turns - 1, chunk, done));
      return;
    }
    this.#chunks.push(Buffer.from(chunk));
    done();
  }
}
