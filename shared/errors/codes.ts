/**
 * The one table of errors: what a code is called, the status a visitor sees, its number on the wire (Close Stream,
 * PROTOCOL.md section 6), whether the same request may succeed when tried again, and what it means.
 * ERRORS.md beside this file is held to it by a test.
 */
export interface ErrorEntry {
  /** HTTP status of the reply to a visitor (RFC 9110 section 15). */
  readonly status: number;
  /** Number in a Close Stream payload, 1–65535. Numbers are never reused. */
  readonly wire: number;
  /** True when the same request may succeed later without any change to it. */
  readonly retryable: boolean;
  readonly meaning: string;
}

export const ERROR_CODES = {
  invalid_token: {
    status: 401,
    wire: 1,
    retryable: false,
    meaning: 'The token is missing, malformed, expired or not signed by a known key.',
  },
  invalid_frame: {
    status: 502,
    wire: 2,
    retryable: false,
    meaning: 'A frame or its payload breaks the wire protocol.',
  },
  rate_limit_exceeded: {
    status: 429,
    wire: 3,
    retryable: true,
    meaning: 'More requests or connections in a period than the limit allows.',
  },
  quota_exceeded: {
    status: 429,
    wire: 4,
    retryable: true,
    meaning: 'A limit on how many of something may exist at once is reached.',
  },
  stream_not_found: {
    status: 502,
    wire: 5,
    retryable: false,
    meaning: 'A frame names a stream that was never opened.',
  },
  connection_closed: {
    status: 502,
    wire: 6,
    retryable: true,
    meaning: 'The connection to the agent or to the service ended before the answer was complete.',
  },
  timeout: { status: 504, wire: 7, retryable: true, meaning: 'The service did not answer in time.' },
  internal_error: {
    status: 500,
    wire: 8,
    retryable: false,
    meaning: 'A fault inside Culvert; the log line with the same request id says more.',
  },
  tunnel_not_found: { status: 404, wire: 20, retryable: false, meaning: 'No tunnel has this host name.' },
  agent_offline: { status: 502, wire: 21, retryable: true, meaning: 'The tunnel exists but no agent serves it now.' },
  tunnel_taken: { status: 409, wire: 22, retryable: false, meaning: 'The name belongs to another account.' },
  unsupported_protocol: {
    status: 505,
    wire: 23,
    retryable: false,
    meaning: 'The other side lacks a protocol version or feature that is required.',
  },
  node_draining: {
    status: 503,
    wire: 24,
    retryable: true,
    meaning: 'The node is shutting down and takes no new work.',
  },
  registry_unavailable: {
    status: 503,
    wire: 25,
    retryable: true,
    meaning: 'The registry cannot be reached, so nothing new can be claimed.',
  },
  loop_detected: {
    status: 508,
    wire: 26,
    retryable: false,
    meaning: 'The request came back to the cluster that sent it.',
  },
  service_unreachable: {
    status: 502,
    wire: 27,
    retryable: true,
    meaning: 'The agent cannot connect to the local service.',
  },
  bad_response: {
    status: 502,
    wire: 28,
    retryable: false,
    meaning: 'The local service answered with something that is not valid HTTP.',
  },
  bad_request: {
    status: 400,
    wire: 29,
    retryable: false,
    meaning: 'The request is not valid HTTP or cannot be forwarded safely.',
  },
  headers_too_large: {
    status: 431,
    wire: 30,
    retryable: false,
    meaning: 'The request line and headers are larger than the limit.',
  },
  body_too_large: { status: 413, wire: 31, retryable: false, meaning: 'The request body is larger than the limit.' },
  overloaded: {
    status: 503,
    wire: 32,
    retryable: true,
    meaning: 'A memory or concurrency budget of the node or session is used up.',
  },
  flow_control_error: {
    status: 502,
    wire: 33,
    retryable: false,
    meaning: 'A sender exceeded the credit of its stream.',
  },
  canceled: {
    status: 499,
    wire: 34,
    retryable: false,
    meaning: 'The visitor went away before the answer was complete.',
  },
  not_processed: {
    status: 503,
    wire: 35,
    retryable: true,
    meaning: 'The stream was refused before any of it was processed; it may be tried elsewhere.',
  },
  invalid_name: {
    status: 400,
    wire: 36,
    retryable: false,
    meaning: 'The tunnel name is not a valid DNS label or is not allowed by the token.',
  },
  invalid_config: {
    status: 400,
    wire: 37,
    retryable: false,
    meaning: 'An option, environment variable or configuration file entry is wrong.',
  },
  session_replaced: {
    status: 502,
    wire: 38,
    retryable: true,
    meaning: 'A newer session of the same agent instance and slot took over.',
  },
  method_not_allowed: {
    status: 405,
    wire: 39,
    retryable: false,
    meaning: 'The method cannot be sent through a tunnel.',
  },
  forbidden: {
    status: 403,
    wire: 40,
    retryable: false,
    meaning: 'The credentials are valid but do not allow this.',
  },
  not_found: { status: 404, wire: 41, retryable: false, meaning: 'What the request names does not exist.' },
  kicked: { status: 502, wire: 42, retryable: true, meaning: 'An operator ended the session.' },
  no_other_node: {
    status: 409,
    wire: 43,
    retryable: true,
    meaning: 'No other node takes agents, so those of this one would have nowhere to go.',
  },
  access_revoked: {
    status: 502,
    wire: 50,
    retryable: false,
    meaning: 'The account, agent, key, token or name is disabled, revoked or not recorded in the cluster.',
  },
  conflict: {
    status: 409,
    wire: 51,
    retryable: false,
    meaning: 'What is to be changed is not as the change expects it.',
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERROR_CODES;

const BY_WIRE = new Map<number, ErrorCode>(
  (Object.keys(ERROR_CODES) as ErrorCode[]).map((code) => [ERROR_CODES[code].wire, code]),
);

/** The code that has this wire number; `internal_error` for a number this version does not know. */
export function codeFromWire(wire: number): ErrorCode {
  return BY_WIRE.get(wire) ?? 'internal_error';
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_CODES, value);
}

/** An error with a code of the table. Callers match on `code`, never on the message. */
export class CulvertError extends Error {
  override readonly name = 'CulvertError';
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message?: string, options?: ErrorOptions) {
    super(message ?? ERROR_CODES[code].meaning, options);
    this.code = code;
  }

  get status(): number {
    return ERROR_CODES[this.code].status;
  }

  get retryable(): boolean {
    return ERROR_CODES[this.code].retryable;
  }
}
