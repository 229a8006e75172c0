import type { Logger } from '../../shared/observability/logger.ts';
import type { RequestOutcome } from './proxy/outcome.ts';

/** Lines a second at most, so that a flood of failing requests cannot become a flood of lines. */
const MAX_LINES_PER_SECOND = 200;

/**
 * One line per request, as `log-requests` says: `errors` writes what failed inside the tunnel (5xx, broken answers), `all`
 * everything. What exceeds the bound is counted and told once a second.
 */
export class AccessLog {
  readonly #log: Logger;
  readonly #mode: 'off' | 'errors' | 'all';
  #second = 0;
  #lines = 0;
  #dropped = 0;

  constructor(log: Logger, mode: 'off' | 'errors' | 'all') {
    this.#log = log;
    this.#mode = mode;
  }

  onRequest(outcome: RequestOutcome): void {
    if (this.#mode === 'off') return;
    const failed =
      outcome.status >= 500 || (outcome.code !== undefined && outcome.code !== 'canceled' && outcome.status !== 404);
    if (!failed && this.#mode === 'errors') return;
    // With `all` the operator asked for every line and bears its cost.
    if (this.#mode === 'errors' && !this.#hasRoom()) return;
    const { exchange } = outcome;
    this.#log[failed ? 'warn' : 'info'](
      {
        id: exchange.requestId,
        tunnel: exchange.tunnelName,
        method: exchange.method,
        // The query may hold secrets.
        path: exchange.target.split('?', 1)[0],
        status: outcome.status,
        code: outcome.code,
        agent: outcome.agentId,
        relayed: outcome.isRelayed,
        remote: exchange.remoteAddress,
        ms: Math.round(outcome.duration * 10) / 10,
        bytesIn: outcome.bytesIn,
        bytesOut: outcome.bytesOut,
      },
      'request',
    );
  }

  #hasRoom(): boolean {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) {
      if (this.#dropped > 0) this.#log.warn({ lines: this.#dropped }, 'request lines were left out');
      this.#second = second;
      this.#lines = 0;
      this.#dropped = 0;
    }
    this.#lines += 1;
    if (this.#lines <= MAX_LINES_PER_SECOND) return true;
    this.#dropped += 1;
    return false;
  }
}
