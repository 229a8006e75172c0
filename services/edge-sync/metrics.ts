import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { createMetricsRegistry } from '../../shared/observability/metrics.ts';
import type { Haproxy, HaproxyEvents } from './haproxy.ts';

/** Seconds. */
const ROUND_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export interface MetricsSources {
  readonly haproxies: () => readonly Haproxy[];
  readonly isRegistryUp: () => boolean;
  readonly names: () => number;
}

/** Prometheus metrics of edge-sync. One series for each HAProxy, named by its socket. */
export class EdgeSyncMetrics {
  readonly registry: Registry = createMetricsRegistry();
  readonly #pushes: Counter<'haproxy' | 'kind'>;
  readonly #restarts: Counter<'haproxy'>;
  readonly #errors: Counter<'haproxy'>;
  readonly #rounds: Histogram<'haproxy'>;

  constructor({ haproxies, isRegistryUp, names }: MetricsSources) {
    const registers = [this.registry];
    this.#pushes = new Counter({
      name: 'edge_sync_pushes_total',
      help: 'Changes said to HAProxy: to its servers, single entries of a map, or a map as a whole.',
      labelNames: ['haproxy', 'kind'],
      registers,
    });
    this.#restarts = new Counter({
      name: 'edge_sync_restarts_total',
      help: 'Times that a map of HAProxy held something else than what was pushed last.',
      labelNames: ['haproxy'],
      registers,
    });
    this.#errors = new Counter({
      name: 'edge_sync_errors_total',
      help: 'Rounds that failed: HAProxy was not there or did not take a command.',
      labelNames: ['haproxy'],
      registers,
    });
    this.#rounds = new Histogram({
      name: 'edge_sync_round_duration_seconds',
      help: 'Time to compare HAProxy with the cluster and to push what differs.',
      labelNames: ['haproxy'],
      buckets: ROUND_BUCKETS,
      registers,
    });
    const perHaproxy = (name: string, help: string, value: (haproxy: Haproxy) => number): void => {
      new Gauge({
        name,
        help,
        labelNames: ['haproxy'],
        registers,
        collect() {
          for (const haproxy of haproxies()) this.set({ haproxy: haproxy.name }, value(haproxy));
        },
      });
    };
    perHaproxy('edge_sync_haproxy_in_step', 'Whether the last round left HAProxy in step (1) or failed (0).', (each) =>
      Number(each.isInStep),
    );
    perHaproxy('edge_sync_lag_seconds', 'Age of the oldest change that was not pushed yet.', (each) => each.lag);
    perHaproxy(
      'edge_sync_owner_entries',
      'Hosts that HAProxy has been told the nodes of.',
      (each) => each.state.owners,
    );
    perHaproxy(
      'edge_sync_node_entries',
      'Server names of nodes that HAProxy has been told.',
      (each) => each.state.nodes,
    );
    perHaproxy('edge_sync_slots_free', 'Slots of HAProxy for further nodes.', (each) => each.state.free);
    perHaproxy('edge_sync_nodes_without_slot', 'Nodes that found no slot.', (each) => each.state.unplaced);
    const single = (name: string, help: string, value: () => number): void => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    };
    single('edge_sync_registry_up', 'Whether the registry answers (1) or not (0).', () => Number(isRegistryUp()));
    single('edge_sync_names', 'Tunnel names in the registry, up to max-names.', names);
  }

  /** What `Haproxy` tells, for the one at this socket. */
  eventsOf(haproxy: string, onInStep: HaproxyEvents['onInStep']): HaproxyEvents {
    for (const kind of ['changes', 'all', 'servers']) this.#pushes.inc({ haproxy, kind }, 0);
    this.#restarts.inc({ haproxy }, 0);
    this.#errors.inc({ haproxy }, 0);
    return {
      onPush: (kind, wasForeign) => {
        this.#pushes.inc({ haproxy, kind });
        if (wasForeign) this.#restarts.inc({ haproxy });
      },
      onRound: (seconds) => this.#rounds.observe({ haproxy }, seconds),
      onError: () => this.#errors.inc({ haproxy }),
      onInStep,
    };
  }
}
