import type { FrameHandler } from '../decoder.ts';
import { FrameType } from '../frame.ts';

/** A frame as it was decoded, whatever pieces it came in. */
export interface RecordedFrame {
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
  /** Open Stream, and Data with HEAD: the head as text. */
  readonly head: string | undefined;
  /** What follows the head, or the whole payload. */
  readonly payload: Buffer;
}

/** Puts the pieces that the decoder hands on together again, so that two ways of splitting the input can be compared. */
export class FrameRecorder implements FrameHandler {
  readonly frames: RecordedFrame[] = [];
  #flags = 0;
  #streamId = 0;
  #head: string | undefined;
  #type: number = FrameType.Data;
  #pieces: Buffer[] = [];
  #isOpen = false;

  /** True while a frame has begun whose end is still to come. */
  get isIncomplete(): boolean {
    return this.#isOpen;
  }

  onControl(type: number, flags: number, streamId: number, payload: Buffer): void {
    if (this.#isOpen) throw new Error('a frame began before the last one was complete');
    this.frames.push({ type, flags, streamId, head: undefined, payload: Buffer.from(payload) });
  }

  onHead(type: number, flags: number, streamId: number, head: string, body: Buffer, complete: boolean): void {
    this.#begin(type, flags, streamId, head);
    this.#take(body, complete);
  }

  onData(flags: number, streamId: number, chunk: Buffer, complete: boolean): void {
    if (!this.#isOpen) this.#begin(FrameType.Data, flags, streamId, undefined);
    if (flags !== this.#flags || streamId !== this.#streamId) throw new Error('pieces of two frames are mixed');
    this.#take(chunk, complete);
  }

  #begin(type: number, flags: number, streamId: number, head: string | undefined): void {
    if (this.#isOpen) throw new Error('a frame began before the last one was complete');
    this.#isOpen = true;
    this.#type = type;
    this.#flags = flags;
    this.#streamId = streamId;
    this.#head = head;
  }

  /** Copies: the decoder's caller may reuse its input. */
  #take(piece: Buffer, complete: boolean): void {
    this.#pieces.push(Buffer.from(piece));
    if (!complete) return;
    this.frames.push({
      type: this.#type,
      flags: this.#flags,
      streamId: this.#streamId,
      head: this.#head,
      payload: Buffer.concat(this.#pieces),
    });
    this.#pieces = [];
    this.#isOpen = false;
  }
}
