import { z } from 'zod';
import { CulvertError } from '../../../../shared/errors/codes.ts';
import type { NodeRecord } from '../../../../shared/registry/registry.ts';
import type { ApiContext } from '../context.ts';
import { cutPage, listQuery, searches } from '../paging.ts';
import { type ApiRoute, defineRoute } from '../route.ts';
import { DrainAnswer, type Missing, NodePage, NodeView } from '../schemas.ts';

const Params = z.strictObject({ node: z.string().min(1).max(128) });
const DrainBody = z.strictObject({
  deadline: z.int().min(0).max(86_400_000).optional().meta({
    description: "Milliseconds for requests on the sessions that move. Default: the node's drain-timeout.",
  }),
});

/** Milliseconds for the other nodes to be told, through Redis. */
const DRAIN_DEADLINE = 5000;

export function nodeRoutes({ registry, calls, view }: ApiContext): ApiRoute[] {
  const find = (nodeId: string): NodeRecord => {
    const record = registry.nodes().find((node) => node.nodeId === nodeId);
    if (record === undefined) throw new CulvertError('not_found', `the cluster has no node ${nodeId}`);
    return record;
  };
  const show = async (records: readonly NodeRecord[]): Promise<{ items: NodeView[]; partial: Missing[] }> => {
    const { figures, partial } = await view.figures(records.map(({ nodeId }) => nodeId));
    const items = records.map((record) => ({
      nodeId: record.nodeId,
      state: record.state,
      version: record.version,
      startedAt: record.startedAt,
      relayAddr: record.relayAddr,
      agentAddr: record.agentAddr,
      sessions: record.sessions,
      isSelf: record.nodeId === calls.nodeId,
      figures: figures.get(record.nodeId) ?? null,
    }));
    return { items, partial };
  };
  return [
    defineRoute({
      ...{ method: 'GET', path: '/nodes', tag: 'Nodes', role: 'viewer', scope: 'cluster' },
      summary: 'The nodes of the cluster, with their figures',
      query: listQuery(['nodeId', 'state', 'sessions', 'startedAt']),
      answer: NodePage,
      handle: async ({ query }) => {
        const found = searches(query.search);
        const page = await cutPage(
          {
            entries: registry.nodes(),
            matches: ({ nodeId }) => found(nodeId),
            sortKey: (node) => sortKey(node, query.sort),
            id: ({ nodeId }) => nodeId,
          },
          query,
        );
        return { ...page, ...(await show(page.items)) };
      },
    }),
    defineRoute({
      ...{ method: 'GET', path: '/nodes/:node', tag: 'Nodes', role: 'viewer', scope: 'cluster' },
      summary: 'One node',
      params: Params,
      answer: NodeView,
      errors: ['not_found'],
      handle: async ({ params }) => {
        const [node] = (await show([find(params.node)])).items;
        if (node === undefined) throw new CulvertError('not_found');
        return node;
      },
    }),
    defineRoute({
      ...{ method: 'POST', path: '/nodes/:node/drain', tag: 'Nodes', role: 'operator', scope: 'cluster' },
      summary: 'Take a node out of use while it runs on',
      description:
        'Its readiness says no, it takes no new agents, and those that it has move to other nodes. Answered when they have been told.',
      params: Params,
      body: DrainBody,
      answer: DrainAnswer,
      errors: ['not_found', 'no_other_node', 'registry_unavailable', 'node_draining', 'timeout', 'not_processed'],
      handle: ({ params, body }) => calls.call(find(params.node).nodeId, 'drain', body, DRAIN_DEADLINE),
    }),
    defineRoute({
      ...{ method: 'POST', path: '/nodes/:node/undrain', tag: 'Nodes', role: 'operator', scope: 'cluster' },
      summary: 'Let a drained node take agents again',
      params: Params,
      answer: DrainAnswer,
      errors: ['not_found', 'node_draining', 'timeout', 'not_processed'],
      handle: ({ params }) => calls.call(find(params.node).nodeId, 'undrain', {}, DRAIN_DEADLINE),
    }),
  ];
}

function sortKey({ nodeId, state, sessions, startedAt }: NodeRecord, sort: string): string | number {
  const key = sort.replace('-', '');
  if (key === 'state') return state;
  if (key === 'sessions') return sessions;
  return key === 'startedAt' ? startedAt : nodeId;
}
