import { z } from 'zod';
import type { Principal } from '../../../../shared/control/principal.ts';
import { CulvertError } from '../../../../shared/errors/codes.ts';
import type { SessionRecord } from '../../../../shared/registry/registry.ts';
import { type AgentSessions, groupAgents } from '../agents.ts';
import { maySee } from '../auth/authorize.ts';
import type { ApiContext } from '../context.ts';
import { cutPage, listQuery, searches } from '../paging.ts';
import { type ApiRoute, defineRoute } from '../route.ts';
import { AgentDetail, AgentPage, type AgentView, KickAnswer, type Missing } from '../schemas.ts';
import { tunnelView } from './tunnels.ts';

const id = z.string().min(1).max(128);
const Query = listQuery(['agentId', 'accountId', 'sessions', 'since']).extend({
  account: id.optional().meta({ description: 'Only those of this account.' }),
  node: id.optional().meta({ description: 'Only those with a session on this node.' }),
});
const OfAccount = z.strictObject({
  account: id.optional().meta({ description: 'Where several accounts have an agent of this id: whose is meant.' }),
});

export function agentRoutes({ registry, calls, view, publicUrl }: ApiContext): ApiRoute[] {
  const show = async (agents: readonly AgentSessions[]): Promise<{ items: AgentView[]; partial: Missing[] }> => {
    const { figures, partial } = await view.sessionFigures(agents.flatMap(({ sessions }) => sessions));
    const items = agents.map(({ agentId, accountId, since, sessions }) => ({
      agentId,
      accountId,
      since,
      sessions: sessions.map((session) => ({
        id: session.id,
        epoch: session.epoch,
        instanceId: session.instanceId,
        slot: session.slot,
        nodeId: session.nodeId,
        openedAt: session.openedAt,
        figures: figures.get(`${session.id}@${session.epoch}`) ?? null,
      })),
    }));
    return { items, partial };
  };
  const find = async (agentId: string, account: string | undefined, principal: Principal): Promise<AgentSessions> => {
    const agents = await groupAgents(
      registry.sessions(),
      (session) =>
        session.agentId === agentId &&
        maySee(principal, session.accountId) &&
        (account === undefined || account === session.accountId),
    );
    const [agent] = agents;
    // What another account has does not exist for this one.
    if (agent === undefined) throw new CulvertError('not_found', `no agent ${agentId} is connected`);
    if (agents.length > 1) {
      throw new CulvertError('bad_request', `${agents.length} accounts have an agent ${agentId}: give ?account=`);
    }
    return agent;
  };
  const kick = async ({ id: sessionId, epoch, nodeId }: SessionRecord, { name }: Principal): Promise<number> => {
    const whose = { kind: 'session', session: { id: sessionId, epoch } } as const;
    const reason = `ended by ${name}`.slice(0, 256);
    return (await calls.call(nodeId, 'kick', { whose, code: 'kicked', reason })).sessions;
  };

  return [
    defineRoute({
      ...{ method: 'GET', path: '/agents', tag: 'Agents', role: 'viewer', scope: 'account' },
      summary: 'Agents that are connected, with their sessions',
      query: Query,
      answer: AgentPage,
      handle: async ({ query, principal }) => {
        const { account, node, sort } = query;
        const found = searches(query.search);
        const agents = await groupAgents(
          registry.sessions(),
          ({ agentId, accountId }) =>
            maySee(principal, accountId) &&
            (account === undefined || account === accountId) &&
            found(agentId, accountId),
        );
        const page = await cutPage(
          {
            entries: agents,
            matches: ({ sessions }) => node === undefined || sessions.some(({ nodeId }) => nodeId === node),
            sortKey: (agent) => sortKey(agent, sort),
            id: ({ accountId, agentId }) => `${agentId} ${accountId}`,
          },
          query,
        );
        return { ...page, ...(await show(page.items)) };
      },
    }),
    defineRoute({
      ...{ method: 'GET', path: '/agents/:agent', tag: 'Agents', role: 'viewer', scope: 'account' },
      summary: 'One agent, with its sessions and tunnels',
      params: z.strictObject({ agent: id }),
      query: OfAccount,
      answer: AgentDetail,
      errors: ['not_found'],
      handle: async ({ params, query, principal }) => {
        const agent = await find(params.agent, query.account, principal);
        const [{ items, partial }, routes] = await Promise.all([show([agent]), registry.byAccount(agent.accountId)]);
        const [shown] = items;
        if (shown === undefined) throw new CulvertError('not_found');
        const served = routes.filter(({ endpoints }) => endpoints.some(({ agentId }) => agentId === agent.agentId));
        return { ...shown, partial, tunnels: served.map((route) => tunnelView(route, publicUrl)) };
      },
    }),
    defineRoute({
      ...{
        method: 'DELETE',
        path: '/agents/:agent/sessions/:session',
        tag: 'Agents',
        role: 'operator',
        scope: 'account',
      },
      summary: 'End a session now',
      description:
        'What is in flight on it is cut off. The agent connects again, unless its token has been taken back. The id is percent-encoded.',
      params: z.strictObject({ agent: id, session: z.string().min(1).max(1024) }),
      query: OfAccount,
      answer: KickAnswer,
      errors: ['not_found', 'timeout', 'not_processed'],
      handle: async ({ params, query, principal }) => {
        const agent = await find(params.agent, query.account, principal);
        const session = agent.sessions.find(({ id: sessionId }) => sessionId === params.session);
        const ended = session === undefined ? 0 : await kick(session, principal);
        if (ended === 0) throw new CulvertError('not_found', `agent ${params.agent} has no session ${params.session}`);
        return { sessions: ended };
      },
    }),
  ];
}

function sortKey({ agentId, accountId, sessions, since }: AgentSessions, sort: string): string | number {
  const key = sort.replace('-', '');
  if (key === 'accountId') return accountId;
  if (key === 'sessions') return sessions.length;
  return key === 'since' ? since : agentId;
}
