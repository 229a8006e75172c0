import { z } from 'zod';
import { CulvertError } from '../../../../shared/errors/codes.ts';
import type { Route } from '../../../../shared/registry/registry.ts';
import { maySee } from '../auth/authorize.ts';
import type { ApiContext } from '../context.ts';
import { cutPage, listQuery, searches } from '../paging.ts';
import { type ApiRoute, defineRoute } from '../route.ts';
import { TunnelPage, TunnelView } from '../schemas.ts';

const id = z.string().min(1).max(128).optional();
const Query = listQuery(['name', 'accountId', 'createdAt', 'endpoints']).extend({
  account: id.meta({ description: 'Only those of this account.' }),
  agent: id.meta({ description: 'Only those that this agent serves.' }),
  node: id.meta({ description: 'Only those with an endpoint on this node.' }),
});

export function tunnelRoutes({ registry, publicUrl }: ApiContext): ApiRoute[] {
  return [
    defineRoute({
      ...{ method: 'GET', path: '/tunnels', tag: 'Tunnels', role: 'viewer', scope: 'account' },
      summary: 'Tunnels that are served now',
      query: Query,
      answer: TunnelPage,
      handle: async ({ query, principal }) => {
        const { account, agent, node } = query;
        const found = searches(query.search);
        const page = await cutPage(
          {
            entries: registry.routes(),
            matches: ({ name, accountId, endpoints }) =>
              maySee(principal, accountId) &&
              (account === undefined || account === accountId) &&
              (agent === undefined || endpoints.some(({ agentId }) => agentId === agent)) &&
              (node === undefined || endpoints.some(({ nodeId }) => nodeId === node)) &&
              found(name, accountId),
            sortKey: (route) => sortKey(route, query.sort),
            id: ({ name }) => name,
          },
          query,
        );
        const items = page.items.map((route) => tunnelView(route, publicUrl));
        return { ...page, items, isComplete: registry.isComplete };
      },
    }),
    defineRoute({
      ...{ method: 'GET', path: '/tunnels/:name', tag: 'Tunnels', role: 'viewer', scope: 'account' },
      summary: 'One tunnel',
      params: z.strictObject({ name: z.string().min(1).max(253) }),
      answer: TunnelView,
      errors: ['not_found', 'registry_unavailable'],
      handle: async ({ params, principal }) => {
        const route = await registry.find(params.name.toLowerCase());
        // That another account has it is nobody else's business.
        if (route === undefined || route.endpoints.length === 0 || !maySee(principal, route.accountId)) {
          throw new CulvertError('not_found', `there is no tunnel ${params.name}`);
        }
        return tunnelView(route, publicUrl);
      },
    }),
  ];
}

export function tunnelView(route: Route, publicUrl: (name: string) => string): TunnelView {
  return {
    name: route.name,
    url: publicUrl(route.name),
    accountId: route.accountId,
    createdAt: route.createdAt,
    isHealthy: route.endpoints.some(({ healthy }) => healthy),
    endpoints: route.endpoints.map(({ agentId, nodeId, session, localAddr, healthy }) => ({
      agentId,
      nodeId,
      sessionId: session.id,
      epoch: session.epoch,
      localAddr,
      isHealthy: healthy,
    })),
  };
}

function sortKey({ name, accountId, createdAt, endpoints }: Route, sort: string): string | number {
  const key = sort.replace('-', '');
  if (key === 'accountId') return accountId;
  if (key === 'createdAt') return createdAt;
  return key === 'endpoints' ? endpoints.length : name;
}
