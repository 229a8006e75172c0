import type { ErrorCode } from '../../../shared/errors/codes.ts';
import type { RequestHead } from '../../../shared/protocol/heads.ts';
import type { Stream, StreamSink } from '../../../shared/protocol/stream-types.ts';
import { ActiveRequests, type RequestInfo } from './exchange.ts';
import { H2Exchange } from './h2.ts';
import { H2Pool } from './h2-pool.ts';
import { Http1Exchange } from './http1.ts';
import { Pool, type PoolOptions } from './pool.ts';
import { type HostHeader, hostOverride, parseTarget } from './target.ts';

export interface ForwarderOptions extends PoolOptions {
  /** Tunnel name (lower case) → URL of its local service, schemes http, https, h2c and h2. */
  readonly mappings: Readonly<Record<string, string>>;
  /** Default `preserve`. */
  readonly hostHeader?: HostHeader | undefined;
  /**
   * Milliseconds for the final response head, counted from the end of the request body or the last progress of it.
   * Default 30000. Found out by a sweep, so up to a second (a quarter of a shorter timeout) late.
   */
  readonly requestTimeoutMs?: number | undefined;
  /** Called at the end of each request; must not throw. */
  readonly onRequest?: ((info: RequestInfo) => void) | undefined;
}

export interface Forwarder {
  /** Requests and raw connections in progress. */
  readonly active: number;
  /** Starts to forward the stream. Failures reach the stream as a reset after `accept` has returned. */
  accept(stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean): StreamSink;
  /** Resets what is in progress with `connection_closed` and closes every socket to the services. */
  close(): void;
}

type Accept = (stream: Stream, head: RequestHead, body: Buffer | undefined, end: boolean) => StreamSink;

interface Route {
  readonly accept: Accept;
  readonly pool: { sweep(now: number): void; close(): void };
}

/** @throws CulvertError `invalid_config` when a mapping's URL is not usable. */
export function createForwarder(options: ForwarderOptions): Forwarder {
  const requestTimeoutMs = options.requestTimeoutMs ?? 30_000;
  const active = new ActiveRequests(requestTimeoutMs, options.onRequest);
  const routes = new Map<string, Route>();
  for (const [tunnel, url] of Object.entries(options.mappings)) {
    routes.set(tunnel, createRoute(tunnel, url, options, active));
  }
  let closed = false;
  const sweep = setInterval(
    () => {
      const now = performance.now();
      active.sweep(now);
      for (const { pool } of routes.values()) pool.sweep(now);
    },
    Math.min(1000, Math.max(10, requestTimeoutMs / 4)),
  ).unref();

  return {
    get active() {
      return active.size;
    },
    accept(stream, head, body, end) {
      if (closed) return refuse(stream, 'node_draining', 'the agent is shutting down');
      const route = routes.get(head.tunnel);
      if (route === undefined) return refuse(stream, 'tunnel_not_found', `no tunnel "${head.tunnel}" on this agent`);
      return route.accept(stream, head, body, end);
    },
    close() {
      if (closed) return;
      closed = true;
      clearInterval(sweep);
      active.failAll('connection_closed', 'the agent is shutting down');
      for (const { pool } of routes.values()) pool.close();
    },
  };
}

function createRoute(tunnel: string, url: string, options: ForwarderOptions, active: ActiveRequests): Route {
  const target = parseTarget(tunnel, url);
  const host = hostOverride(options.hostHeader ?? 'preserve', target);
  if (target.protocol === 'h2') {
    const pool = new H2Pool(target, options);
    return { pool, accept: (stream, head, body, end) => new H2Exchange(active, pool, host, stream, head, body, end) };
  }
  const pool = new Pool(target, options);
  return { pool, accept: (stream, head, body, end) => new Http1Exchange(active, pool, host, stream, head, body, end) };
}

/** The session does not hold the sink before `accept` returns, so the reset comes after it. */
function refuse(stream: Stream, code: ErrorCode, message: string): StreamSink {
  queueMicrotask(() => stream.reset(code, message));
  return IGNORE;
}

const IGNORE: StreamSink = {
  onHead() {},
  onData() {},
  onTrailers() {},
  onWritable() {},
  onClose() {},
};
