import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { Scheme } from './visitor-connection.ts';

/**
 * What the public listener hands to the proxy stage: one request and the way to answer it, the same for HTTP/1.0,
 * HTTP/1.1, HTTP/2 and upgrades.
 */
export interface VisitorHandler {
  /** Called once per valid request, in order of arrival. What it throws is answered as `internal_error`. */
  request(exchange: VisitorExchange): void;
}

export interface VisitorExchange {
  readonly method: string;
  /** Origin form (RFC 9112 section 3.2.1), or `*` with OPTIONS. */
  readonly target: string;
  /** The authority as the visitor sent it, port included, checked to be a host; '' for HTTP/1.0 without Host. */
  readonly host: string;
  /** Subdomain or custom domain that the host stands for; undefined when it can be none. */
  readonly tunnelName: string | undefined;
  /** Ready to forward: hop-by-hop fields removed, forwarding fields added, order, case and duplicates kept. */
  readonly headers: FlatHeaders;
  readonly requestId: string;
  readonly accept: string | undefined;
  /** The visitor's address: the peer's, or what a trusted proxy says. */
  readonly remoteAddress: string;
  readonly protocol: VisitorProtocol;
  /** How the visitor came: by TLS to this listener, or as a trusted proxy says. */
  readonly scheme: Scheme;
  /** True when the visitor asks for another protocol, whose name is the Upgrade field of `headers`. */
  readonly isUpgrade: boolean;
  /** False when no body follows: `onEnd` is then never called (except after `switchProtocols`). */
  readonly hasBody: boolean;
  /** Bytes of the request body, when the visitor said so. */
  readonly contentLength: number | undefined;
  readonly headSent: boolean;
  /** The visitor's connection holds more than it should: `onDrain` tells when not; after the end, whether any is unsent. */
  readonly isBlocked: boolean;

  /** Begins delivery of the request body, which is held back before, and the reports of `receiver`. Call it once. */
  start(receiver: VisitorReceiver): void;
  /** Stops delivery of the request body; the visitor's sending stalls when the buffers in between are full. */
  pause(): void;
  resume(): void;
  /** Sends an interim response, 100 or 102–199. HTTP/1.0 visitors get none. Invalid fields drop it silently. */
  informational(status: number, headers: FlatHeaders): void;
  /**
   * Sends the final head, with the first body bytes when at hand; `end`: nothing follows. Owns `headers` from then on.
   * Hop-by-hop fields are removed and framing is chosen here. Returns true when the head went out. False means: the head
   * is not valid HTTP and the visitor was sent `bad_response` instead, or the exchange was over already. The exchange is
   * then over, so that the caller has only its stream to reset.
   */
  respond(status: number, reason: string, headers: FlatHeaders, body: Buffer | undefined, end: boolean): boolean;
  /**
   * Answers an upgrade with 101. From then on `write`, `end`, `onData` and `onEnd` carry raw bytes, each half closing by
   * itself. Returns false, as `respond` does, when this is no upgrade or the head is not valid.
   */
  switchProtocols(headers: FlatHeaders, first: Buffer | undefined): boolean;
  /** Sends body bytes; what exceeds Content-Length is cut off. False: wait for `onDrain`. */
  write(chunk: Buffer): boolean;
  /** Sends trailer fields and ends. They are left out where the protocol or a Content-Length has no room for them. */
  trailers(headers: FlatHeaders): void;
  /** Ends the response; one shorter than its Content-Length is aborted instead. */
  end(): void;
  /** Breaks the response so that the visitor sees it is incomplete: connection closed, or RST_STREAM INTERNAL_ERROR. */
  abort(): void;
  /** Calls back once all of an ended response is written, or the visitor is gone. */
  whenSent(callback: () => void): void;
  /** Gives up what is unsent of an ended response; the visitor sees it broken. */
  drop(): void;
  /** Sends an error reply when no head has been sent, else `abort()`. */
  fail(code: ErrorCode, detail?: string): void;
}

export type VisitorProtocol = 'http/1.1' | 'http/1.0' | 'h2';

/** Receives from the visitor. Methods must not throw. */
export interface VisitorReceiver {
  onData(chunk: Buffer): void;
  /** The request body, or after `switchProtocols` the visitor's half, is complete. */
  onEnd(trailers: FlatHeaders | undefined): void;
  onDrain(): void;
  /** The visitor is gone before the response was ended. At most once, nothing follows; never after end or abort. */
  onAbort(): void;
  /** After the response was ended: all of it is written, or the visitor is gone. Once. */
  onFinish?(): void;
}
