import { z } from 'zod';
import { Count, NodeFigures, SessionFigures, Timestamp, Traffic } from '../../../shared/control/figures.ts';
import { pageOf } from './paging.ts';

/** What the API answers. The command line reads answers with the same schemas. */

/** A node that did not answer, so that what only it knows is missing. */
export const Missing = z.object({ nodeId: z.string(), code: z.string(), message: z.string() });
export type Missing = z.infer<typeof Missing>;

const partial = z.array(Missing).meta({ description: 'Nodes that did not answer; what only they know is missing.' });

export const NodeView = z.object({
  nodeId: z.string(),
  state: z.enum(['up', 'draining']),
  version: z.string(),
  startedAt: Timestamp,
  relayAddr: z.string(),
  agentAddr: z.string().meta({ description: 'Where agents are sent; empty: none are.' }),
  sessions: Count.meta({ description: 'Agent sessions, as of its last renewal of the lease.' }),
  isSelf: z.boolean().meta({ description: 'Whether this node gave the answer.' }),
  figures: NodeFigures.nullable().meta({ description: 'Null when the node did not answer.' }),
});
export type NodeView = z.infer<typeof NodeView>;

export const NodePage = pageOf(NodeView).extend({ partial });

export const SessionView = z.object({
  id: z.string(),
  epoch: Count,
  instanceId: z.string(),
  slot: Count,
  nodeId: z.string(),
  openedAt: Timestamp,
  figures: SessionFigures.nullable().meta({ description: 'Null when its node did not answer, or has it no more.' }),
});
export type SessionView = z.infer<typeof SessionView>;

export const AgentView = z.object({
  agentId: z.string(),
  accountId: z.string(),
  since: Timestamp.meta({ description: 'When the oldest of its sessions opened; milliseconds since the Unix epoch.' }),
  sessions: z.array(SessionView),
});
export type AgentView = z.infer<typeof AgentView>;

export const AgentPage = pageOf(AgentView).extend({ partial });

export const TunnelView = z.object({
  name: z.string(),
  url: z.string(),
  accountId: z.string(),
  createdAt: Timestamp,
  isHealthy: z.boolean().meta({ description: 'Whether an endpoint says that its service answers.' }),
  endpoints: z.array(
    z.object({
      agentId: z.string(),
      nodeId: z.string(),
      sessionId: z.string(),
      epoch: Count,
      localAddr: z.string(),
      isHealthy: z.boolean(),
    }),
  ),
});
export type TunnelView = z.infer<typeof TunnelView>;

export const TunnelPage = pageOf(TunnelView).extend({
  isComplete: z.boolean().meta({ description: 'False when the cluster has more tunnels than a node keeps in memory.' }),
});

export const AgentDetail = AgentView.extend({ tunnels: z.array(TunnelView), partial });

export const Overview = z.object({
  agents: Count,
  sessions: Count,
  tunnels: Count,
  endpoints: Count,
  accounts: Count,
  cluster: z
    .object({
      nodes: z.object({ total: Count, up: Count, draining: Count }),
      visitors: Count,
      streams: Count,
      rates: Traffic,
    })
    .nullable()
    .meta({ description: 'Sums over the nodes that answered; null for those who see one account only.' }),
  partial,
});
export type Overview = z.infer<typeof Overview>;

export const DrainAnswer = z.object({
  draining: z.boolean(),
  sessions: Count.meta({ description: 'Sessions that are still on the node.' }),
});

export const KickAnswer = z.object({ sessions: Count.meta({ description: 'Sessions that were ended.' }) });
