import type { NodeFigures } from '../../../shared/control/figures.ts';
import type { NodeId, Registry } from '../../../shared/registry/registry.ts';
import { VERSION } from '../../../shared/version.ts';
import type { LinkState } from '../relay/relay-links.ts';
import type { RecentFigures, TrafficSource } from './traffic-meter.ts';

export interface FigureSources {
  readonly nodeId: NodeId;
  /** Milliseconds since the Unix epoch. */
  readonly startedAt: number;
  readonly registry: Registry;
  readonly readiness: { readonly ready: boolean; readonly checks: Readonly<Record<string, boolean>> };
  readonly draining: boolean;
  readonly sessions: number;
  readonly visitors: number;
  readonly streams: number;
  /** Bytes received and not passed on. */
  readonly buffered: number;
  readonly recent: RecentFigures;
  readonly traffic: TrafficSource;
  readonly links: readonly LinkState[];
}

/** What the node says of itself. */
export function nodeFigures(sources: FigureSources): NodeFigures {
  const { nodeId, startedAt, registry, readiness, draining, sessions, visitors, streams, recent, links } = sources;
  const problem = registry.unavailable();
  const { rss, heapUsed } = process.memoryUsage();
  return {
    nodeId: nodeId,
    version: VERSION,
    startedAt: startedAt,
    ready: readiness.ready,
    checks: { ...readiness.checks },
    draining,
    sessions,
    visitors,
    streams,
    ...recent,
    totals: sources.traffic.totals,
    memory: { rss, heapUsed: heapUsed, buffered: sources.buffered },
    registry: { available: problem === undefined, problem: problem?.message ?? null, ...registry.stats() },
    links: links.map((link) => ({
      nodeId: link.nodeId,
      up: link.up,
      roundTrip: link.up ? (link.roundTrip ?? null) : null,
      streams: link.streams,
    })),
  };
}
