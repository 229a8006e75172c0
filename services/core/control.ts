import type { ClusterCalls } from '../../shared/control/calls.ts';
import type { NodeFigures } from '../../shared/control/figures.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import type { NodeId, Registry } from '../../shared/registry/registry.ts';
import { CallServer } from './calls/call-server.ts';
import { callHandlers } from './calls/handlers.ts';
import { NodeCalls } from './calls/node-calls.ts';
import type { Cluster } from './cluster.ts';
import type { Drain } from './drain.ts';
import { nodeFigures } from './figures/node-figures.ts';
import { TrafficMeter, type TrafficSource } from './figures/traffic-meter.ts';
import type { SessionTable } from './sessions/session-table.ts';

export interface NodeControlOptions {
  readonly nodeId: NodeId;
  readonly registry: Registry;
  readonly table: SessionTable;
  readonly traffic: TrafficSource;
  readonly log: Logger;
  readonly drain: Drain;
  readonly readiness: () => { readonly ready: boolean; readonly checks: Readonly<Record<string, boolean>> };
  /** Connections of visitors, requests in flight, and bytes received and not passed on. */
  readonly load: () => { readonly visitors: number; readonly streams: number; readonly buffered: number };
  /** Undefined for a node that is alone, or has not joined yet. */
  readonly cluster: () => Cluster | undefined;
}

/** What can be asked of this node and what it can ask others: the ground of the API. */
export class NodeControl {
  /** Answers other nodes. */
  readonly server: CallServer;
  /** Asks them, and this one. */
  readonly calls: ClusterCalls;
  readonly #options: NodeControlOptions;
  readonly #meter: TrafficMeter;
  readonly #startedAt = Date.now();

  constructor(options: NodeControlOptions) {
    const { nodeId, table, drain, log } = options;
    this.#options = options;
    this.#meter = new TrafficMeter(options.traffic);
    this.server = new CallServer(callHandlers({ table, drain, figures: () => this.figures, log }), log);
    this.calls = new NodeCalls(nodeId, this.server, (peer) => options.cluster()?.upstream(peer));
  }

  get figures(): NodeFigures {
    const { nodeId, registry, table, traffic, drain, readiness, load, cluster } = this.#options;
    return nodeFigures({
      nodeId,
      registry,
      traffic,
      ...load(),
      startedAt: this.#startedAt,
      readiness: readiness(),
      draining: drain.isDraining,
      sessions: table.size,
      recent: this.#meter.recent,
      links: cluster()?.links ?? [],
    });
  }

  close(): void {
    this.#meter.close();
  }
}
