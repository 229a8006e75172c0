import { Gauge, type Registry } from 'prom-client';
import type { Totals } from '../../shared/control/figures.ts';
import { createMetricsRegistry, HotCounter, HotHistogram, topN } from '../../shared/observability/metrics.ts';
import type { Registry as TunnelRegistry } from '../../shared/registry/registry.ts';
import type { RequestOutcome } from './proxy/outcome.ts';
import type { TunnelProxy } from './proxy/proxy.ts';
import type { SessionTable } from './sessions/session-table.ts';

const STATUS_CLASSES = ['none', '1xx', '2xx', '3xx', '4xx', '5xx'] as const;
const SERVER_ERRORS = STATUS_CLASSES.indexOf('5xx');
/** Seconds; a tunnel adds less than a millisecond, services take up to minutes. */
const DURATION_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** Accounts that have a series of their own. */
const TOP_ACCOUNTS = 20;

export interface MetricsSources {
  readonly table: SessionTable;
  readonly registry: TunnelRegistry;
  readonly proxy: () => TunnelProxy;
  readonly visitors: () => number;
  readonly heldBytes: () => number;
}

/** The core's Prometheus metrics. What happens per request is an addition in an array; the rest is read at the scrape. */
export class CoreMetrics {
  readonly registry: Registry = createMetricsRegistry();
  readonly #requests: HotCounter<'code'>;
  readonly #durations: HotHistogram<'code'>;
  readonly #bytes: HotCounter<'direction'>;
  readonly #connections: HotCounter<'result'>;
  readonly #relayed: HotCounter;

  constructor(sources: MetricsSources) {
    const series = STATUS_CLASSES.map((code) => ({ code }));
    this.#requests = new HotCounter(this.registry, {
      name: 'tunnel_requests_total',
      help: 'Requests of visitors that are over, by class of the status that they saw (none: they left before).',
      labelNames: ['code'],
      series,
    });
    this.#durations = new HotHistogram(this.registry, {
      name: 'tunnel_request_duration_seconds',
      help: 'Time from the head of a request to the end of its response.',
      labelNames: ['code'],
      series,
      buckets: DURATION_BUCKETS,
    });
    this.#bytes = new HotCounter(this.registry, {
      name: 'tunnel_bytes_total',
      help: 'Body bytes carried, in: from visitors, out: to visitors.',
      labelNames: ['direction'],
      series: [{ direction: 'in' }, { direction: 'out' }],
    });
    this.#connections = new HotCounter(this.registry, {
      name: 'tunnel_connections_total',
      help: 'Connections of agents, accepted or refused.',
      labelNames: ['result'],
      series: [{ result: 'accepted' }, { result: 'refused' }],
    });
    this.#relayed = new HotCounter(this.registry, {
      name: 'tunnel_relayed_requests_total',
      help: 'Requests that went to another node, which held the agent; part of tunnel_requests_total.',
    });
    const registers = [this.registry];
    new Gauge({
      name: 'tunnel_connections_per_account',
      help: `Agent sessions on this node of the ${TOP_ACCOUNTS} accounts with most, and of all others together.`,
      labelNames: ['account'],
      registers,
      collect() {
        this.reset();
        for (const [account, count] of topN(sources.table.perAccount, TOP_ACCOUNTS)) this.set({ account }, count);
      },
    });
    gauge(
      registers,
      'tunnel_streams_active',
      'Requests and raw connections in progress.',
      () => sources.proxy().active,
    );
    gauge(registers, 'tunnel_sessions_active', 'Agent sessions on this node.', () => sources.table.size);
    gauge(registers, 'tunnel_visitors_active', 'Connections of visitors to this node.', sources.visitors);
    gauge(registers, 'tunnel_buffered_bytes', 'Bytes from agents that visitors have not taken yet.', sources.heldBytes);
    new Gauge({
      name: 'tunnel_registry_size',
      help: 'Entries in the registry as this node sees it.',
      labelNames: ['kind'],
      registers,
      collect() {
        const { tunnels, endpoints, sessions } = sources.registry.stats();
        this.set({ kind: 'tunnels' }, tunnels);
        this.set({ kind: 'endpoints' }, endpoints);
        this.set({ kind: 'sessions' }, sessions);
      },
    });
  }

  onRequest(outcome: RequestOutcome): void {
    const series = Math.min(5, Math.floor(outcome.status / 100));
    this.#requests.inc(series);
    this.#durations.observe(series, outcome.duration / 1000);
    if (outcome.isRelayed) this.#relayed.inc();
    if (outcome.bytesIn > 0) this.#bytes.inc(0, outcome.bytesIn);
    if (outcome.bytesOut > 0) this.#bytes.inc(1, outcome.bytesOut);
  }

  /** Since the start. */
  get totals(): Totals {
    return {
      requests: STATUS_CLASSES.reduce((sum, _, series) => sum + this.#requests.value(series), 0),
      errors: this.#requests.value(SERVER_ERRORS),
      relayed: this.#relayed.value(),
      bytesIn: this.#bytes.value(0),
      bytesOut: this.#bytes.value(1),
    };
  }

  /** Durations of requests since the start, by bucket; the last count is of what lies above all bounds. */
  get durations(): { readonly bounds: readonly number[]; readonly counts: Float64Array } {
    return { bounds: DURATION_BUCKETS, counts: this.#durations.counts() };
  }

  onAgent(accepted: boolean): void {
    this.#connections.inc(accepted ? 0 : 1);
  }
}

function gauge(registers: Registry[], name: string, help: string, value: () => number): void {
  new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(value());
    },
  });
}
