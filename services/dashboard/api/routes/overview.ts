import type { ApiContext } from '../context.ts';
import { overviewOf } from '../overview.ts';
import { type ApiRoute, defineRoute } from '../route.ts';
import { Overview } from '../schemas.ts';

export function overviewRoutes(context: ApiContext): ApiRoute[] {
  return [
    defineRoute({
      ...{ method: 'GET', path: '/overview', tag: 'Overview', role: 'viewer', scope: 'account' },
      summary: 'What there is and what it does, in numbers',
      answer: Overview,
      handle: ({ principal }) => overviewOf(context, principal),
    }),
  ];
}
