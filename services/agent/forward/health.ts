import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { connect } from 'node:net';
import { addressOf, parseTarget, type Target, type TlsPolicy, tlsOptions } from './target.ts';

export interface HealthCheckOptions {
  readonly tunnel: string;
  /** URL of the local service, as in the forwarder's mappings. */
  readonly url: string;
  /** Path to GET; any 2xx or 3xx is a success. Without a path nothing is checked. */
  readonly path?: string | undefined;
  /** Milliseconds from the end of one check to the next. Default 10000. */
  readonly intervalMs?: number | undefined;
  /** Milliseconds for one check. Default 5000. */
  readonly timeoutMs?: number | undefined;
  readonly tls?: TlsPolicy | undefined;
  /** Called on each change only; a service counts as healthy at the start. `why` is for people. */
  readonly onChange: (healthy: boolean, why: string) => void;
}

export interface HealthCheck {
  readonly healthy: boolean;
  close(): void;
}

/** One failure may be chance (a restart, a full backlog). */
const FAILURES_TO_UNHEALTHY = 2;

/**
 * Checks a local service for as long as it is not closed. For `h2c` and `h2` a TCP connection is the check.
 * @throws CulvertError `invalid_config` when the URL is not usable.
 */
export function startHealthCheck(options: HealthCheckOptions): HealthCheck {
  const target = parseTarget(options.tunnel, options.url);
  const { path } = options;
  const intervalMs = options.intervalMs ?? 10_000;
  const timeoutMs = options.timeoutMs ?? 5000;
  let healthy = true;
  let failures = 0;
  let closed = false;
  let cancel = (): void => {};

  const finished = (failure: string | undefined): void => {
    if (closed) return;
    failures = failure === undefined ? 0 : failures + 1;
    const timer = setTimeout(check, intervalMs).unref();
    cancel = () => clearTimeout(timer);
    const next = failure === undefined || (healthy && failures < FAILURES_TO_UNHEALTHY);
    if (next === healthy) return;
    healthy = next;
    options.onChange(healthy, failure ?? 'the service answers');
  };
  const check = (): void => {
    cancel =
      target.protocol === 'h2'
        ? connects(target, timeoutMs, finished)
        : answers(target, path ?? '/', options, timeoutMs, finished);
  };
  if (path !== undefined) check();

  return {
    get healthy() {
      return healthy;
    },
    close() {
      closed = true;
      cancel();
    },
  };
}

type Done = (failure: string | undefined) => void;

/** Calls `done` once; returns what breaks the check off without a call. */
function answers(target: Target, path: string, options: HealthCheckOptions, timeoutMs: number, done: Done): () => void {
  const address = {
    ...addressOf(target),
    path,
    agent: false,
    headers: { host: target.authority, 'user-agent': 'culvert-health', connection: 'close' },
  };
  const request = target.tls
    ? requestHttps({ ...address, ...tlsOptions(target, options.tls ?? {}, 'http/1.1') })
    : requestHttp(address);
  const settle = once(timeoutMs, done, () => request.destroy());
  request.on('response', (response) => {
    const status = response.statusCode ?? 0;
    settle.done(status >= 200 && status < 400 ? undefined : `GET ${path} answered ${status}`);
  });
  request.on('error', (error: NodeJS.ErrnoException) => settle.done(error.code ?? error.message));
  request.end();
  return settle.cancel;
}

function connects(target: Target, timeoutMs: number, done: Done): () => void {
  const socket = connect(addressOf(target));
  const settle = once(timeoutMs, done, () => socket.destroy());
  socket.on('connect', () => settle.done(undefined));
  socket.on('error', (error: NodeJS.ErrnoException) => settle.done(error.code ?? error.message));
  return settle.cancel;
}

/** The first outcome counts, the timeout among them; whichever it is, the check's socket goes. */
function once(timeoutMs: number, done: Done, destroy: () => void): { done: Done; cancel: () => void } {
  let over = false;
  const end = (): boolean => {
    if (over) return false;
    over = true;
    clearTimeout(timer);
    destroy();
    return true;
  };
  const settle: Done = (failure) => {
    if (end()) done(failure);
  };
  const timer = setTimeout(() => settle(`no answer within ${timeoutMs} ms`), timeoutMs).unref();
  return { done: settle, cancel: end };
}
