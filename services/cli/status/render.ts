import type { AgentView, Missing, NodeView, TunnelView } from '../../dashboard/api/schemas.ts';
import type { Status } from './client.ts';
import { type Column, table } from './table.ts';

const NODES: readonly Column[] = [
  { title: 'NODE' },
  { title: 'STATE' },
  { title: 'UP', isNumber: true, spare: 4 },
  { title: 'SESSIONS', isNumber: true },
  { title: 'STREAMS', isNumber: true, spare: 2 },
  { title: 'REQ/S', isNumber: true, spare: 1 },
  { title: 'LAG', isNumber: true, spare: 5 },
  { title: 'MEMORY', isNumber: true, spare: 3 },
  { title: 'VERSION', spare: 6 },
];

const AGENTS: readonly Column[] = [
  { title: 'AGENT' },
  { title: 'ACCOUNT' },
  { title: 'NODES' },
  { title: 'FROM', spare: 2 },
  { title: 'RTT', isNumber: true, spare: 1 },
  { title: 'STREAMS', isNumber: true, spare: 4 },
  { title: 'UP', isNumber: true, spare: 3 },
  { title: 'VERSION', spare: 5 },
];

const TUNNELS: readonly Column[] = [
  { title: 'TUNNEL' },
  { title: 'ACCOUNT', spare: 1 },
  { title: 'HEALTH', spare: 2 },
  { title: 'SERVED BY' },
  { title: 'URL', spare: 3 },
];

/** @param width characters of the terminal; undefined: as wide as it gets @param now milliseconds since the Unix epoch */
export function renderStatus({ overview, nodes, agents, tunnels }: Status, width?: number, now = Date.now()): string {
  const { cluster } = overview;
  const summary = [
    ...(cluster === null ? [] : [count(cluster.nodes.total, 'node')]),
    count(overview.agents, 'agent'),
    count(overview.sessions, 'session'),
    count(overview.tunnels, 'tunnel'),
    ...(cluster === null ? [] : [`${cluster.rates.requests.toFixed(1)} requests/s`]),
  ].join(', ');
  const sections = [
    ...(nodes === undefined
      ? []
      : [
          table(
            NODES,
            nodes.items.map((node) => nodeRow(node, nodes.partial, now)),
            width,
          ),
        ]),
    list(
      'agents',
      AGENTS,
      agents.items.map((agent) => agentRow(agent, now)),
      agents.total,
      width,
    ),
    list('tunnels', TUNNELS, tunnels.items.map(tunnelRow), tunnels.total, width),
  ];
  const missing = [...(nodes?.partial ?? []), ...agents.partial].map(({ nodeId, message }) => `${nodeId}: ${message}`);
  const notes = [...new Set(missing)].map((note) => `! ${note}`);
  const incomplete = tunnels.isComplete
    ? []
    : ['! There are more tunnels than a node keeps in memory: not all are shown.'];
  const blocks = [[summary], ...sections, [...notes, ...incomplete]].filter(({ length }) => length > 0);
  return `${blocks.map((lines) => lines.join('\n')).join('\n\n')}\n`;
}

function list(
  what: string,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  total: number,
  width: number | undefined,
): string[] {
  if (rows.length === 0) return [`No ${what}.`];
  const more = total - rows.length;
  return [...table(columns, rows, width), ...(more > 0 ? [`… and ${more} more ${what}: --limit, --search`] : [])];
}

function nodeRow(
  { nodeId, state, startedAt, sessions, version, figures, isSelf }: NodeView,
  missing: readonly Missing[],
  now: number,
): string[] {
  const silent = missing.some((each) => each.nodeId === nodeId);
  const known = figures === null ? '-' : undefined;
  return [
    isSelf ? `${nodeId} *` : nodeId,
    silent ? `${state}, no answer` : figures?.ready === false && state === 'up' ? 'not ready' : state,
    age(now - startedAt),
    String(figures?.sessions ?? sessions),
    known ?? String(figures?.streams),
    known ?? (figures?.rates.requests ?? 0).toFixed(1),
    known ?? `${(figures?.eventLoopLag.p99 ?? 0).toFixed(0)} ms`,
    known ?? `${Math.round((figures?.memory.rss ?? 0) / 1_048_576)} MiB`,
    version,
  ];
}

function agentRow({ agentId, accountId, since, sessions }: AgentView, now: number): string[] {
  const figures = sessions.flatMap((session) => session.figures ?? []);
  const trips = figures.flatMap(({ roundTrip }) => roundTrip ?? []);
  return [
    agentId,
    accountId,
    distinct(sessions.map(({ nodeId }) => nodeId)),
    distinct(figures.map(({ remoteAddress }) => remoteAddress)),
    trips.length === 0 ? '-' : `${Math.min(...trips).toFixed(1)} ms`,
    figures.length === 0 ? '-' : String(figures.reduce((sum, { streams }) => sum + streams, 0)),
    age(now - since),
    distinct(figures.map(({ version }) => version)),
  ];
}

function tunnelRow({ name, accountId, isHealthy, endpoints, url }: TunnelView): string[] {
  const servedBy = distinct(endpoints.map(({ agentId, nodeId }) => `${agentId}@${nodeId}`));
  return [name, accountId, isHealthy ? 'ok' : 'failing', servedBy, url];
}

function distinct(values: readonly string[]): string {
  return [...new Set(values)].filter((value) => value !== '').join(', ') || '-';
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

/** The two largest units of a duration. @param milliseconds below 0 counts as 0 */
function age(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3600)}h`;
}
