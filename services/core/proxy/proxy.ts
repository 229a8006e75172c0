import { performance } from 'node:perf_hooks';
import type { VisitorExchange, VisitorHandler } from '../edge/exchange.ts';
import type { ProxyOptions, RequestOutcome } from './outcome.ts';
import { ProxiedRequest, type RequestOwner } from './proxied-request.ts';

/** Stage 3 and on: takes each visitor's request to an endpoint of its tunnel and brings the answer back. */
export class TunnelProxy implements VisitorHandler, RequestOwner {
  readonly options: ProxyOptions;
  readonly #active = new Set<ProxiedRequest>();
  readonly #sweep: NodeJS.Timeout;

  constructor(options: ProxyOptions) {
    this.options = options;
    // One sweep for all requests: a timer of its own for each would cost more than the request's bookkeeping.
    this.#sweep = setInterval(() => this.#expire(), Math.min(1000, options.responseTimeout / 4));
    this.#sweep.unref();
  }

  /** Requests in flight. */
  get active(): number {
    return this.#active.size;
  }

  request(exchange: VisitorExchange): void {
    const request = new ProxiedRequest(exchange, this);
    this.#active.add(request);
    request.start();
  }

  /** Called by a request when it is over. */
  finished(request: ProxiedRequest, outcome: RequestOutcome): void {
    this.#active.delete(request);
    this.options.onOutcome(outcome);
  }

  close(): void {
    clearInterval(this.#sweep);
  }

  #expire(): void {
    const limit = performance.now() - this.options.responseTimeout;
    for (const request of this.#active) request.expire(limit);
  }
}
