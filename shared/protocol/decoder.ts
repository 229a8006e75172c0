import { CulvertError } from '../errors/codes.ts';
import {
  FIRST_IGNORABLE_TYPE,
  Flag,
  FRAME_HEADER_BYTES,
  FrameType,
  HEAD_PREFIX_BYTES,
  MAX_CONTROL_PAYLOAD,
  MAX_STREAM_PAYLOAD,
  PROTOCOL_VERSION,
} from './frame.ts';
import { MAX_HEAD_BYTES } from './heads.ts';

/** Receives decoded frames in order. */
export interface FrameHandler {
  /** A frame other than Open Stream and Data, whole. `payload` is only borrowed: copy what outlives the call. */
  onControl(type: number, flags: number, streamId: number, payload: Buffer): void;
  /**
   * Open Stream, or Data with HEAD: the head and the body bytes at hand. `complete` is false when more body of the same
   * frame follows through `onData`.
   */
  onHead(type: number, flags: number, streamId: number, head: string, body: Buffer, complete: boolean): void;
  /** Body bytes of Open Stream or Data, as they arrive. `complete`: the frame ends here. */
  onData(flags: number, streamId: number, chunk: Buffer, complete: boolean): void;
}

const EMPTY = Buffer.alloc(0);

type State = 'header' | 'control' | 'head' | 'body' | 'skip';

/**
 * Cuts a byte stream into frames. Frames may be split or coalesced at any byte. Body bytes are handed on as slices of the
 * input, without waiting for the rest of their frame; only a header, control payload or head that is split is copied.
 */
export class FrameDecoder {
  readonly #handler: FrameHandler;
  #state: State = 'header';
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Payload bytes of the current frame that have not been taken yet. */
  #remaining = 0;
  /** What is being gathered (header, control payload, or prefix and head) and how much of it is here. */
  #gather: Buffer = EMPTY;
  #gathered = 0;
  #wanted = 0;
  #stopped = false;
  readonly #headerBuffer = Buffer.alloc(FRAME_HEADER_BYTES);

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** Ignores everything from now on, also the rest of a chunk that is being decoded. */
  stop(): void {
    this.#stopped = true;
    this.#gather = EMPTY;
  }

  /** @throws CulvertError `invalid_frame` on a fault in framing; the decoder is then stopped. */
  feed(chunk: Buffer): void {
    let offset = 0;
    try {
      while (offset < chunk.length && !this.#stopped) offset = this.#step(chunk, offset);
    } catch (error) {
      this.stop();
      throw error;
    }
  }

  #step(chunk: Buffer, offset: number): number {
    switch (this.#state) {
      case 'header':
        return this.#takeHeader(chunk, offset);
      case 'control':
        return this.#takeControl(chunk, offset);
      case 'head':
        return this.#takeHead(chunk, offset);
      case 'body':
        return this.#takeBody(chunk, offset);
      case 'skip': {
        const taken = Math.min(this.#remaining, chunk.length - offset);
        this.#remaining -= taken;
        if (this.#remaining === 0) this.#state = 'header';
        return offset + taken;
      }
    }
  }

  #takeHeader(chunk: Buffer, offset: number): number {
    if (this.#gathered === 0 && chunk.length - offset >= FRAME_HEADER_BYTES) {
      this.#startFrame(chunk, offset);
      return offset + FRAME_HEADER_BYTES;
    }
    const taken = Math.min(FRAME_HEADER_BYTES - this.#gathered, chunk.length - offset);
    chunk.copy(this.#headerBuffer, this.#gathered, offset, offset + taken);
    this.#gathered += taken;
    if (this.#gathered === FRAME_HEADER_BYTES) {
      this.#gathered = 0;
      this.#startFrame(this.#headerBuffer, 0);
    }
    return offset + taken;
  }

  #startFrame(source: Buffer, offset: number): void {
    if (source[offset] !== PROTOCOL_VERSION) {
      throw fault(`version ${source[offset]} is not ${PROTOCOL_VERSION}`);
    }
    const type = source[offset + 1] as number;
    const flags = source[offset + 2] as number;
    const length = source.readUInt32BE(offset + 8);
    this.#type = type;
    this.#flags = flags;
    this.#streamId = source.readUInt32BE(offset + 4);
    this.#remaining = length;
    const carriesBody = type === FrameType.Data || type === FrameType.OpenStream;
    if (length > (carriesBody ? MAX_STREAM_PAYLOAD : MAX_CONTROL_PAYLOAD)) {
      throw fault(`type 0x${type.toString(16)} has ${length} bytes of payload, above the limit`);
    }
    if (carriesBody) {
      if (type === FrameType.OpenStream || (flags & Flag.Head) !== 0) {
        if (length < HEAD_PREFIX_BYTES) throw fault('a head frame is shorter than the length of its head');
        this.#state = 'head';
        this.#wanted = HEAD_PREFIX_BYTES;
      } else if (length === 0) {
        this.#state = 'header';
        this.#handler.onData(flags, this.#streamId, EMPTY, true);
      } else {
        this.#state = 'body';
      }
    } else if (!isKnown(type)) {
      if (type < FIRST_IGNORABLE_TYPE) throw fault(`type 0x${type.toString(16)} is unknown`);
      this.#state = length === 0 ? 'header' : 'skip';
    } else if (length === 0) {
      this.#state = 'header';
      this.#handler.onControl(type, flags, this.#streamId, EMPTY);
    } else {
      this.#state = 'control';
      this.#wanted = length;
    }
  }

  #takeControl(chunk: Buffer, offset: number): number {
    const start = this.#collect(chunk, offset);
    if (this.#gathered < this.#wanted && this.#gather !== EMPTY) return chunk.length;
    const payload = this.#gather === EMPTY ? chunk.subarray(offset, start) : this.#gather;
    this.#reset('header');
    this.#handler.onControl(this.#type, this.#flags, this.#streamId, payload);
    return start;
  }

  #takeHead(chunk: Buffer, offset: number): number {
    // The usual case: prefix and head lie whole in this chunk and nothing has to be copied.
    if (this.#gathered === 0 && chunk.length - offset >= HEAD_PREFIX_BYTES) {
      const size = this.#headSize(chunk.readUInt32BE(offset));
      if (chunk.length - offset >= size) {
        return this.#emitHead(chunk, chunk, offset, offset + size);
      }
      this.#wanted = size;
    }
    const start = this.#collect(chunk, offset);
    if (this.#gathered < this.#wanted) return chunk.length;
    const size = this.#headSize(this.#gather.readUInt32BE(0));
    if (this.#wanted < size) {
      const larger = Buffer.allocUnsafe(size);
      this.#gather.copy(larger, 0, 0, this.#gathered);
      this.#gather = larger;
      this.#wanted = size;
      return start;
    }
    const gathered = this.#gather;
    return this.#emitHead(gathered, chunk, 0, start);
  }

  #headSize(headLength: number): number {
    if (headLength > MAX_HEAD_BYTES) throw fault(`a head of ${headLength} bytes is above ${MAX_HEAD_BYTES}`);
    if (HEAD_PREFIX_BYTES + headLength > this.#remaining) throw fault('a head is longer than its frame');
    return HEAD_PREFIX_BYTES + headLength;
  }

  /** The head stands in `source` from `from`; its body goes on in `chunk` at `bodyStart`. */
  #emitHead(source: Buffer, chunk: Buffer, from: number, bodyStart: number): number {
    const length = source.readUInt32BE(from);
    const head = source.toString('latin1', from + HEAD_PREFIX_BYTES, from + HEAD_PREFIX_BYTES + length);
    const bodyLeft = this.#remaining - HEAD_PREFIX_BYTES - length;
    const taken = Math.min(bodyLeft, chunk.length - bodyStart);
    const complete = taken === bodyLeft;
    this.#reset(complete ? 'header' : 'body');
    this.#remaining = bodyLeft - taken;
    const body = taken === 0 ? EMPTY : chunk.subarray(bodyStart, bodyStart + taken);
    this.#handler.onHead(this.#type, this.#flags, this.#streamId, head, body, complete);
    return bodyStart + taken;
  }

  #takeBody(chunk: Buffer, offset: number): number {
    const taken = Math.min(this.#remaining, chunk.length - offset);
    this.#remaining -= taken;
    const complete = this.#remaining === 0;
    if (complete) this.#state = 'header';
    const whole = offset === 0 && taken === chunk.length;
    this.#handler.onData(this.#flags, this.#streamId, whole ? chunk : chunk.subarray(offset, offset + taken), complete);
    return offset + taken;
  }

  /**
   * Takes bytes towards `#wanted`. When they all lie in this chunk and nothing was gathered before, nothing is copied and
   * `#gather` stays empty. Returns the offset behind what was taken.
   */
  #collect(chunk: Buffer, offset: number): number {
    const missing = this.#wanted - this.#gathered;
    const taken = Math.min(missing, chunk.length - offset);
    if (this.#gathered === 0 && taken === missing && this.#state === 'control') return offset + taken;
    if (this.#gather.length < this.#wanted) {
      const larger = Buffer.allocUnsafe(this.#wanted);
      this.#gather.copy(larger, 0, 0, this.#gathered);
      this.#gather = larger;
    }
    chunk.copy(this.#gather, this.#gathered, offset, offset + taken);
    this.#gathered += taken;
    return offset + taken;
  }

  #reset(state: State): void {
    this.#state = state;
    this.#gather = EMPTY;
    this.#gathered = 0;
  }
}

function isKnown(type: number): boolean {
  switch (type) {
    case FrameType.Heartbeat:
    case FrameType.AuthRequest:
    case FrameType.AuthResponse:
    case FrameType.RegisterTunnel:
    case FrameType.UnregisterTunnel:
    case FrameType.GoAway:
    case FrameType.CloseStream:
    case FrameType.WindowUpdate:
    case FrameType.Error:
      return true;
    default:
      return false;
  }
}

function fault(why: string): CulvertError {
  return new CulvertError('invalid_frame', `invalid frame: ${why}`);
}
