import { Gauge, type Registry } from 'prom-client';
import { ERROR_CODES, type ErrorCode } from '../../shared/errors/codes.ts';
import { createMetricsRegistry, HotCounter, HotHistogram } from '../../shared/observability/metrics.ts';
import type { AgentHandle } from './agent.ts';
import type { RequestInfo } from './forward/exchange.ts';

const STATUS_CLASSES = ['none', '1xx', '2xx', '3xx', '4xx', '5xx'] as const;
/** Seconds. */
const DURATION_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** The agent's Prometheus metrics. */
export class AgentMetrics {
  readonly registry: Registry = createMetricsRegistry();
  readonly #requests: HotCounter<'code'>;
  readonly #durations: HotHistogram<'code'>;
  readonly #errors: HotCounter<'code'>;
  readonly #errorSeries = new Map<ErrorCode, number>();

  constructor() {
    const series = STATUS_CLASSES.map((code) => ({ code }));
    this.#requests = new HotCounter(this.registry, {
      name: 'agent_requests_total',
      help: 'Requests that are over, by class of the status of the local service (none: it gave no answer).',
      labelNames: ['code'],
      series,
    });
    this.#durations = new HotHistogram(this.registry, {
      name: 'agent_request_duration_seconds',
      help: 'Time from the arrival of a request at the agent to the end of its answer.',
      labelNames: ['code'],
      series,
      buckets: DURATION_BUCKETS,
    });
    const codes = Object.keys(ERROR_CODES) as ErrorCode[];
    for (const [at, code] of codes.entries()) this.#errorSeries.set(code, at);
    this.#errors = new HotCounter(this.registry, {
      name: 'agent_errors_total',
      help: 'Requests that failed and connections that ended, by error code.',
      labelNames: ['code'],
      series: codes.map((code) => ({ code })),
    });
  }

  /** Reports the sessions of this agent, too. */
  watch(agent: AgentHandle): void {
    new Gauge({
      name: 'agent_connection_status',
      help: 'Whether a session with the core is up (1) or not (0).',
      labelNames: ['slot'],
      registers: [this.registry],
      collect() {
        for (const { slot, state } of agent.sessions) this.set({ slot: String(slot) }, state === 'online' ? 1 : 0);
      },
    });
    agent.on('disconnected', ({ error }) => this.onError(error.code));
  }

  onRequest(info: RequestInfo): void {
    const series = Math.min(5, Math.floor(info.status / 100));
    this.#requests.inc(series);
    this.#durations.observe(series, info.ms / 1000);
    if (info.code !== undefined) this.onError(info.code);
  }

  onError(code: ErrorCode): void {
    const series = this.#errorSeries.get(code);
    if (series !== undefined) this.#errors.inc(series);
  }
}
