import { performance } from 'node:perf_hooks';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders, ResponseHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink, Upstream } from '../../../shared/protocol/stream-types.ts';
import type { Route, SessionId } from '../../../shared/registry/registry.ts';
import type { VisitorExchange, VisitorReceiver } from '../edge/exchange.ts';
import { withEndpoint } from '../relay/meta.ts';
import type { Visit } from '../router/affinity.ts';
import { BlockedBody } from './blocked-body.ts';
import type { ProxyOptions, RequestOutcome } from './outcome.ts';
import { endStream, SentBody } from './sent-body.ts';

/** Keeps the requests in flight. */
export interface RequestOwner {
  readonly options: ProxyOptions;
  /** Called once, when the request is over. */
  finished(request: ProxiedRequest, outcome: RequestOutcome): void;
}

const NO_AGENT = 'no agent serves this tunnel now';
/** Endpoints that one request may be given to, the first included. */
const MAX_ATTEMPTS = 3;
/** For the news of where an agent went, when the node that had it refuses the request. Milliseconds. */
const ROUTE_WAIT = 1000;

/**
 * One visitor's request on its way: joins the visitor's exchange to a stream of the chosen endpoint, in both directions,
 * with the pressure of each passed on to the other.
 */
export class ProxiedRequest implements StreamSink, VisitorReceiver {
  readonly #exchange: VisitorExchange;
  readonly #owner: RequestOwner;
  readonly #startedAt = performance.now();
  #progressAt = this.#startedAt;
  #tried: SessionId[] = [];
  #agentId: string | undefined;
  #isRelayed = false;
  #upstream: Upstream | undefined;
  #stream: Stream | undefined;
  /** What ties the visitor to an agent, where the tunnel's policy wants that. */
  #visit: Visit | undefined;
  /** For the response: ties the visitor to the endpoint that was chosen last. */
  #cookie: string | undefined;
  /** While another endpoint may still have to be asked; undefined without a body. */
  #sent: SentBody | undefined;
  #hasWaited = false;
  #status = 0;
  #responseEnded = false;
  #over = false;
  #bytesIn = 0;
  #bytesOut = 0;
  /** Response bytes that the visitor's connection has not taken yet: their credit is held back. */
  #unacknowledged = 0;
  /** Bytes of these that the visitor's connection has not even been given. */
  #blocked: BlockedBody | undefined;
  /** Bytes of an ended response that the visitor still has to take: they count against the process's budget. */
  #lingering = 0;

  constructor(exchange: VisitorExchange, owner: RequestOwner) {
    this.#exchange = exchange;
    this.#owner = owner;
  }

  start(): void {
    const name = this.#exchange.tunnelName;
    const route = this.#lookUp();
    if (route !== undefined || name === undefined) {
      this.#begin(route);
      return;
    }
    this.#owner.options.router.find(name).then(
      (found) => this.#begin(found),
      (error: unknown) => {
        const failure = error instanceof CulvertError ? error : new CulvertError('internal_error', String(error));
        this.#fail(failure.code, failure.message);
      },
    );
  }

  #begin(route: Route | undefined): void {
    const exchange = this.#exchange;
    if (route === undefined) {
      const name = exchange.tunnelName;
      if (name !== undefined && this.#owner.options.router.wasServed(name)) this.#fail('agent_offline', NO_AGENT);
      else this.#fail('tunnel_not_found', `no tunnel for ${exchange.host}`);
      return;
    }
    const most = this.#owner.options.maxBodySize;
    if (most > 0 && (exchange.contentLength ?? 0) > most) {
      this.#fail('body_too_large', `the limit is ${most} bytes`);
      return;
    }
    this.#visit = this.#owner.options.router.visit(route, exchange.headers);
    if (exchange.hasBody) this.#sent = new SentBody(this.#owner.options.budget);
    this.#dispatch(route);
    if (!this.#over) exchange.start(this);
  }

  /** Gives up when nothing has moved since `limit` and there is no response yet. @param limit monotonic milliseconds */
  expire(limit: number): void {
    if (this.#status === 0 && this.#progressAt < limit) {
      this.#stream?.reset('timeout', 'the agent brought no response in time');
    }
  }

  // ---- from the endpoint

  onHead(head: ResponseHead, body: Buffer | undefined, end: boolean): void {
    if (this.#over) return;
    this.#progressAt = performance.now();
    this.#settle();
    if (this.#cookie !== undefined && (head.status === 101 || head.status >= 200)) {
      head.headers.push('Set-Cookie', this.#cookie);
    }
    if (head.status === 101) {
      if (!this.#exchange.isUpgrade) {
        this.#stream?.reset('bad_response', '101 without a request to switch protocols');
      } else if (this.#exchange.switchProtocols(head.headers, body)) {
        this.#status = 101;
        this.#passed(body, end);
      } else {
        this.#refusedHead();
      }
    } else if (head.status < 200) {
      this.#exchange.informational(head.status, head.headers);
    } else if (this.#exchange.respond(head.status, head.reason, head.headers, body, end)) {
      this.#status = head.status;
      if (end) this.#responseEnded = true;
      this.#passed(body, false);
    } else {
      this.#refusedHead();
    }
  }

  /** Both sides call it: the stream with `end`, the visitor's exchange without. */
  onData(chunk: Buffer, end?: boolean): void {
    if (end === undefined) this.#fromVisitor(chunk);
    else this.#fromEndpoint(chunk, end);
  }

  onTrailers(headers: FlatHeaders): void {
    if (this.#over || this.#responseEnded) return;
    this.#flushBlocked();
    this.#responseEnded = true;
    this.#exchange.trailers(headers);
  }

  onWritable(): void {
    this.#exchange.resume();
  }

  onClose(code: ErrorCode | undefined, message: string): void {
    this.#stream = undefined;
    if (this.#over) return;
    if (code === undefined) {
      if (this.#status === 0) this.#fail('bad_response', 'the agent closed the stream without a response');
      else if (!this.#responseEnded) this.#abort('connection_closed');
      else {
        this.#linger();
        this.#finish(undefined);
      }
    } else if (this.#responseEnded) {
      this.#linger();
      this.#finish(undefined);
    } else if (this.#status !== 0) {
      this.#abort(code);
    } else if (this.#mayRetry(code)) {
      // Endpoints have come and gone since the request began.
      this.#dispatch(this.#lookUp(), new CulvertError(code, message));
    } else {
      this.#fail(code, message);
    }
  }

  // ---- from the visitor

  onEnd(trailers: FlatHeaders | undefined): void {
    this.#sent?.ended(trailers);
    if (this.#stream !== undefined) endStream(this.#stream, trailers);
  }

  onDrain(): void {
    this.#flushBlocked();
    const bytes = this.#unacknowledged;
    this.#unacknowledged = 0;
    if (bytes > 0) this.#stream?.consumed(bytes);
  }

  onAbort(): void {
    if (this.#over) return;
    const stream = this.#stream;
    this.#finish('canceled');
    stream?.reset('canceled', 'the visitor went away');
  }

  #release(): void {
    this.#owner.options.budget.free(this.#lingering);
    this.#lingering = 0;
  }

  #fromVisitor(chunk: Buffer): void {
    const stream = this.#stream;
    if (this.#over) return;
    this.#bytesIn += chunk.length;
    this.#progressAt = performance.now();
    const most = this.#owner.options.maxBodySize;
    if (most > 0 && this.#bytesIn > most && this.#status !== 101) {
      this.#fail('body_too_large', `the limit is ${most} bytes`);
      stream?.reset('body_too_large', 'the request body is above the limit');
      return;
    }
    this.#sent?.add(chunk);
    if (stream === undefined || !stream.write(chunk, false)) this.#exchange.pause();
  }

  #fromEndpoint(chunk: Buffer, end: boolean): void {
    if (this.#over || this.#responseEnded) return;
    if (this.#status === 0) {
      this.#stream?.reset('invalid_frame', 'body bytes came before the response head');
      return;
    }
    if (chunk.length > 0) this.#send(chunk);
    if (end) this.#endResponse();
  }

  #send(chunk: Buffer): void {
    this.#bytesOut += chunk.length;
    if (this.#unacknowledged > 0) {
      this.#unacknowledged += chunk.length;
      this.#blocked ??= new BlockedBody();
      const ready = this.#blocked.add(chunk);
      if (ready !== undefined) this.#exchange.write(ready);
    } else if (this.#exchange.write(chunk)) {
      this.#stream?.consumed(chunk.length);
    } else {
      this.#unacknowledged = chunk.length;
    }
  }

  #flushBlocked(): void {
    const rest = this.#blocked?.take();
    if (rest !== undefined) this.#exchange.write(rest);
  }

  #endResponse(): void {
    this.#flushBlocked();
    this.#responseEnded = true;
    this.#exchange.end();
  }

  /** The stream's budget ends with the stream; what a visitor has not taken by then is held on to by the process. */
  #linger(): void {
    if (this.#unacknowledged === 0) return;
    this.#lingering = this.#unacknowledged;
    this.#unacknowledged = 0;
    const fits = this.#owner.options.budget.hold(this.#lingering);
    this.#exchange.whenSent(() => this.#release());
    if (!fits) this.#exchange.drop();
  }

  #passed(body: Buffer | undefined, end: boolean): void {
    if (body !== undefined) {
      this.#bytesOut += body.length;
      if (this.#exchange.isBlocked) this.#unacknowledged += body.length;
      else this.#stream?.consumed(body.length);
    }
    if (end) this.#endResponse();
  }

  #lookUp(): Route | undefined {
    const name = this.#exchange.tunnelName;
    return name === undefined ? undefined : this.#owner.options.router.route(name);
  }

  /** @param failure why the endpoint before this one did not answer, for when there is no other */
  #dispatch(route: Route | undefined, failure?: CulvertError): void {
    const exchange = this.#exchange;
    const visit = this.#visit;
    const { router } = this.#owner.options;
    let last = failure;
    while (route !== undefined && this.#tried.length < MAX_ATTEMPTS) {
      const choice = router.choose(route, this.#tried, visit);
      if (choice === undefined) break;
      if (visit !== undefined) this.#cookie = router.cookie(route, choice, visit, exchange.scheme === 'https');
      this.#tried.push(choice.endpoint.session.id);
      this.#agentId = choice.endpoint.agentId;
      this.#isRelayed = choice.isRelayed;
      this.#upstream = choice.upstream;
      try {
        const stream = choice.upstream.open(
          {
            method: exchange.method,
            target: exchange.target,
            tunnel: route.name,
            meta: choice.isRelayed ? withEndpoint('', choice.endpoint.session) : '',
            headers: visit?.headers ?? exchange.headers,
          },
          undefined,
          !exchange.hasBody && !exchange.isUpgrade,
          this,
        );
        // An overflow while opening ends the stream at once, and `onClose` has dealt with it.
        if (stream.isOpen) this.#opened(stream);
        return;
      } catch (error) {
        if (!(error instanceof CulvertError)) throw error;
        last = error;
      }
    }
    if (last?.code === 'not_processed' && !this.#hasWaited) this.#awaitRoute(last);
    else if (last === undefined || last.code === 'not_processed') this.#fail('agent_offline', NO_AGENT);
    else this.#fail(last.code, last.message);
  }

  #opened(stream: Stream): void {
    this.#stream = stream;
    if (this.#tried.length > 1 && this.#sent?.sendTo(stream) === true) this.#exchange.resume();
  }

  /** An endpoint that sent the request away may have moved, and the news of it be on their way here. */
  #awaitRoute(failure: CulvertError): void {
    const name = this.#exchange.tunnelName;
    this.#hasWaited = true;
    if (name === undefined || this.#tried.length >= MAX_ATTEMPTS) {
      this.#fail('agent_offline', NO_AGENT);
      return;
    }
    void this.#owner.options.router.whenChanged(name, ROUTE_WAIT).then(() => {
      if (this.#over) return;
      // A body that grew too long to be sent again meanwhile.
      if (this.#sent?.isWhole === false) this.#fail('agent_offline', NO_AGENT);
      else this.#dispatch(this.#lookUp(), failure);
    });
  }

  /** An endpoint has taken the request: no other will be asked. */
  #settle(): void {
    this.#sent?.drop();
    this.#sent = undefined;
  }

  /**
   * Only when the other side provably did not process the request, or it is idempotent (RFC 9110 section 9.2.2), and all of
   * its body is still here.
   */
  #mayRetry(code: ErrorCode): boolean {
    if (this.#tried.length >= MAX_ATTEMPTS || this.#sent?.isWhole === false) return false;
    if (code === 'not_processed') return true;
    // A service that hung up was asked: only the loss of the session makes another endpoint worth a try.
    const isSessionLost = code === 'connection_closed' && this.#upstream?.available === false;
    return isSessionLost && !this.#exchange.isUpgrade && isIdempotent(this.#exchange.method);
  }

  #refusedHead(): void {
    const stream = this.#stream;
    this.#status = 502;
    this.#finish('bad_response');
    stream?.reset('bad_response', 'the response head is not valid HTTP');
  }

  #fail(code: ErrorCode, detail: string): void {
    if (this.#over) return;
    this.#status = new CulvertError(code).status;
    this.#exchange.fail(code, detail);
    this.#finish(code);
  }

  #abort(code: ErrorCode): void {
    this.#exchange.abort();
    this.#finish(code);
  }

  #finish(code: ErrorCode | undefined): void {
    if (this.#over) return;
    this.#over = true;
    this.#settle();
    this.#owner.finished(this, {
      exchange: this.#exchange,
      status: this.#status,
      code,
      agentId: this.#agentId,
      isRelayed: this.#isRelayed,
      duration: performance.now() - this.#startedAt,
      bytesIn: this.#bytesIn,
      bytesOut: this.#bytesOut,
    });
  }
}

function isIdempotent(method: string): boolean {
  switch (method) {
    case 'GET':
    case 'HEAD':
    case 'OPTIONS':
    case 'TRACE':
    case 'PUT':
    case 'DELETE':
      return true;
    default:
      return false;
  }
}
