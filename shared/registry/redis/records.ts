import { z } from 'zod';
import { decodePolicy } from '../../policy/tunnel-policy.ts';
import { ofNewestSession } from '../newest-session.ts';
import {
  type Endpoint,
  type NodeId,
  type NodeRecord,
  type Route,
  type SessionId,
  type SessionRecord,
  sessionId,
} from '../registry.ts';

/** What stands in Redis, with short keys: there is one of these for each tunnel. KEYS.md names each. */

const nodeId = z.string().transform((id) => id as NodeId);

const StoredEndpoint = z.object({
  s: z.string().transform((id) => id as SessionId),
  p: z.number(),
  n: nodeId,
  b: z.string(),
  i: z.number(),
  g: z.string(),
  l: z.string(),
  h: z.boolean(),
  y: z.string().optional(),
});
export type StoredEndpoint = z.infer<typeof StoredEndpoint>;

const StoredRoute = z.object({ a: z.string(), c: z.number(), e: z.array(StoredEndpoint) });
export type StoredRoute = z.infer<typeof StoredRoute>;

const StoredSession = z.object({
  a: z.string(),
  g: z.string(),
  i: z.string(),
  t: z.number(),
  n: nodeId,
  o: z.number(),
  p: z.number(),
  b: z.string(),
  c: z.number(),
  x: z.literal(1).optional(),
});
export type StoredSession = z.infer<typeof StoredSession>;

const SessionChange = z.tuple([StoredSession, StoredSession.nullable()]);

const Lease = z.object({ i: z.number(), x: z.number(), r: z.string() });
const StoredNode = z.object({
  relayAddr: z.string(),
  agentAddr: z.string(),
  serverName: z.string().optional(),
  edge: z
    .object({ host: z.string(), publicPort: z.number(), agentPort: z.number(), healthPort: z.number() })
    .optional(),
  version: z.string(),
  startedAt: z.number(),
  state: z.enum(['up', 'draining']),
  sessions: z.number(),
});

export interface LeaseRecord {
  readonly nodeId: NodeId;
  readonly incarnation: number;
  /** By Redis' clock, milliseconds. */
  readonly expiresAt: number;
  /** Undefined for a registry that holds a lease without being a member. */
  readonly node: NodeRecord | undefined;
}

export function parseRoute(json: string): StoredRoute {
  return StoredRoute.parse(JSON.parse(json));
}

export function parseSession(json: string): StoredSession {
  return StoredSession.parse(JSON.parse(json));
}

/** The session that is live now and the one that it replaced. */
export function parseSessionChange(json: string): [StoredSession, StoredSession | null] {
  return SessionChange.parse(JSON.parse(json));
}

export function parseLease(id: string, json: string): LeaseRecord {
  const { i, x, r } = Lease.parse(JSON.parse(json));
  const node = nodeId.parse(id);
  return { nodeId: node, incarnation: i, expiresAt: x, node: r === '' ? undefined : parseNode(node, r) };
}

function parseNode(id: NodeId, json: string): NodeRecord {
  const { serverName, edge, ...rest } = StoredNode.parse(JSON.parse(json));
  return {
    nodeId: id,
    ...rest,
    ...(serverName === undefined ? {} : { serverName }),
    ...(edge === undefined ? {} : { edge }),
  };
}

export function nodeJson({ nodeId: _, ...rest }: NodeRecord): string {
  return JSON.stringify(rest);
}

export function routeOf(name: string, stored: StoredRoute): Route {
  const newest = ofNewestSession(stored.e, ({ s, p }) => ({ id: s, epoch: p }));
  const policy = newest?.y === undefined ? undefined : decodePolicy(newest.y);
  // A rule that this node does not know may be one that keeps visitors out: it lets nobody in, and the others serve the tunnel.
  const isReadable = policy !== undefined || newest?.y === undefined;
  return Object.freeze({
    name,
    accountId: stored.a,
    createdAt: stored.c,
    endpoints: Object.freeze(isReadable ? stored.e.map(endpointOf) : []),
    ...(policy === undefined ? {} : { policy }),
  });
}

function endpointOf({ s, p, n, g, l, h, y }: StoredEndpoint): Endpoint {
  const policy = y === undefined ? undefined : decodePolicy(y);
  return Object.freeze({
    session: Object.freeze({ id: s, epoch: p }),
    nodeId: n,
    agentId: g,
    localAddr: l,
    healthy: h,
    ...(policy === undefined ? {} : { policy }),
  });
}

export function sessionOf({ a, g, i, t, n, o, p }: StoredSession): SessionRecord {
  return Object.freeze({
    id: sessionId(g, i, t),
    epoch: p,
    agentId: g,
    accountId: a,
    instanceId: i,
    slot: t,
    nodeId: n,
    openedAt: o,
  });
}

/** @param by the node whose lease the session lives on, and its incarnation */
export function storedSession(record: SessionRecord, by: string, incarnation: number): StoredSession {
  return {
    a: record.accountId,
    g: record.agentId,
    i: record.instanceId,
    t: record.slot,
    n: record.nodeId,
    o: record.openedAt,
    p: record.epoch,
    b: by,
    c: incarnation,
  };
}
