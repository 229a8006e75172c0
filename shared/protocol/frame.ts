/**
 * Layout of a frame (PROTOCOL.md section 2): a 12-byte header, big endian, then the payload.
 *
 *     0        1     2      3         4 – 7      8 – 11
 *     version  type  flags  reserved  stream id  payload length
 */
export const PROTOCOL_VERSION = 0x01;
export const FRAME_HEADER_BYTES = 12;

export const FrameType = {
  Heartbeat: 0x00,
  AuthRequest: 0x01,
  AuthResponse: 0x02,
  RegisterTunnel: 0x10,
  UnregisterTunnel: 0x11,
  GoAway: 0x12,
  OpenStream: 0x20,
  Data: 0x21,
  CloseStream: 0x22,
  WindowUpdate: 0x23,
  Error: 0xff,
} as const;

/** Frame types from here to 0xFE are extensions: a receiver that does not know one ignores it. */
export const FIRST_IGNORABLE_TYPE = 0x80;

export const Flag = {
  /** Heartbeat, Register, Unregister: this is the reply. */
  Ack: 0x01,
  /** Open Stream, Data: the sender's half of the stream ends with this frame. */
  EndStream: 0x01,
  /** Close Stream: abort now instead of a clean end. */
  Reset: 0x02,
  /** Data: the payload starts with a length-prefixed head. */
  Head: 0x02,
  /** Data with Head: the head is a list of trailer fields. */
  Trailers: 0x04,
  /** Open Stream on a relay link: a call to the node itself, not a request for a tunnel. */
  Call: 0x08,
} as const;

/** Ids 1–999 are reserved; the opener uses even ids from here. */
export const FIRST_STREAM_ID = 1000;
/** Largest stream id that is opened: a session goes away long before the 32-bit field is used up. */
export const LAST_STREAM_ID = 0x7fff_fffe;

/** Largest payload of Open Stream and Data, bytes: a head of 128 KiB, its prefix and 64 KiB of body fit. */
export const MAX_STREAM_PAYLOAD = 256 * 1024;
/** Largest payload of any other frame, bytes. */
export const MAX_CONTROL_PAYLOAD = 64 * 1024;
/** Bytes that prefix a head: its length as u32. */
export const HEAD_PREFIX_BYTES = 4;

/** Largest Data payload while several streams compete, bytes (DESIGN.md section 3). */
export const FAIR_DATA_BYTES = 16 * 1024;
/** Largest Data payload of a stream that has the session to itself, bytes. */
export const BULK_DATA_BYTES = 64 * 1024;

/** Credit that each direction of a new stream starts with, bytes. */
export const INITIAL_WINDOW = 256 * 1024;
/** A window never grows beyond this, bytes: 16 MiB fills 1 Gbit/s at 130 ms. */
export const MAX_WINDOW = 16 * 1024 * 1024;

export function writeFrameHeader(
  target: Buffer,
  offset: number,
  type: number,
  flags: number,
  streamId: number,
  length: number,
): void {
  target[offset] = PROTOCOL_VERSION;
  target[offset + 1] = type;
  target[offset + 2] = flags;
  target[offset + 3] = 0;
  target.writeUInt32BE(streamId, offset + 4);
  target.writeUInt32BE(length, offset + 8);
}

/** One whole frame in a buffer of its own: for control frames and tests, not for the hot path. */
export function encodeFrame(type: number, flags: number, streamId: number, payload: Uint8Array | string): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'utf8') : payload;
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + body.length);
  writeFrameHeader(frame, 0, type, flags, streamId, body.length);
  frame.set(body, FRAME_HEADER_BYTES);
  return frame;
}
