import { z } from 'zod';

/**
 * What a node says of itself while it runs: the answers of cluster calls (calls.ts), and parts of the API's answers. Names
 * and descriptions are those of the API's reference. Milliseconds, bytes and counts unless a name says otherwise.
 */

export const Count = z.int().min(0);
const bytes = z.number().min(0);
export const Milliseconds = z.number().min(0);
/** Per second. */
const rate = z.number().min(0);

/** Milliseconds since the Unix epoch. */
export const Timestamp = z.int().min(0).meta({ description: 'Milliseconds since the Unix epoch.' });

export const LinkFigures = z.object({
  nodeId: z.string(),
  up: z.boolean().meta({ description: 'Whether requests can be sent over it now.' }),
  roundTrip: Milliseconds.nullable().meta({ description: 'Null while the link is down.' }),
  streams: Count.meta({ description: 'Requests and calls in flight to that node.' }),
});
export type LinkFigures = z.infer<typeof LinkFigures>;

export const Traffic = z.object({
  requests: rate,
  errors: rate.meta({ description: 'Answers with 5xx.' }),
  relayed: rate.meta({ description: 'Requests that went to the node that holds the agent.' }),
  bytesIn: rate.meta({ description: 'Body bytes from visitors.' }),
  bytesOut: rate.meta({ description: 'Body bytes to visitors.' }),
});
export type Traffic = z.infer<typeof Traffic>;

export const Totals = z.object({
  requests: Count,
  errors: Count,
  relayed: Count,
  bytesIn: bytes,
  bytesOut: bytes,
});
export type Totals = z.infer<typeof Totals>;

export const NodeFigures = z.object({
  nodeId: z.string(),
  version: z.string(),
  startedAt: Timestamp,
  ready: z.boolean(),
  checks: z.record(z.string(), z.boolean()).meta({ description: 'What readiness looks at; false is what is missing.' }),
  draining: z.boolean(),
  sessions: Count.meta({ description: 'Agent sessions on the node.' }),
  visitors: Count.meta({ description: 'Connections of visitors.' }),
  streams: Count.meta({ description: 'Requests of visitors in flight.' }),
  rates: Traffic.meta({ description: 'Per second, over the last ten seconds or so.' }),
  totals: Totals.meta({ description: 'Since the node started.' }),
  latency: z
    .object({ p50: Milliseconds, p95: Milliseconds, p99: Milliseconds })
    .nullable()
    .meta({ description: 'Head of a request to the end of its answer, over the same time; null without requests.' }),
  eventLoopLag: z
    .object({ p50: Milliseconds, p99: Milliseconds, max: Milliseconds })
    .meta({ description: 'How late timers ran in the same time.' }),
  cpu: z.number().min(0).meta({ description: 'Share of one processor, 1 is all of it.' }),
  memory: z.object({
    rss: bytes,
    heapUsed: bytes,
    buffered: bytes.meta({ description: 'Received and not passed on yet.' }),
  }),
  registry: z.object({
    available: z.boolean(),
    problem: z.string().nullable(),
    tunnels: Count,
    endpoints: Count,
    sessions: Count,
  }),
  links: z.array(LinkFigures).max(1024),
});
export type NodeFigures = z.infer<typeof NodeFigures>;

export const SessionFigures = z.object({
  id: z.string().meta({ description: 'agent/instance/slot, each percent-encoded.' }),
  epoch: Count.meta({ description: 'Higher for each later session of the same id.' }),
  remoteAddress: z.string(),
  version: z.string().meta({ description: 'Of the agent software; empty when it did not say.' }),
  draining: z.boolean().meta({ description: 'Told to go elsewhere, or on its way.' }),
  roundTrip: Milliseconds.nullable().meta({ description: 'Null before the first heartbeat was answered.' }),
  streams: Count.meta({ description: 'Requests in flight on it.' }),
  requests: Count.meta({ description: 'Requests that it was sent so far.' }),
  bytesIn: bytes.meta({ description: 'From the agent, with framing.' }),
  bytesOut: bytes.meta({ description: 'To the agent, with framing.' }),
});
export type SessionFigures = z.infer<typeof SessionFigures>;
