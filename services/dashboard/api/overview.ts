import { setImmediate as turn } from 'node:timers/promises';
import type { NodeFigures, Traffic } from '../../../shared/control/figures.ts';
import type { Principal } from '../../../shared/control/principal.ts';
import { groupAgents } from './agents.ts';
import { maySee } from './auth/authorize.ts';
import type { ApiContext } from './context.ts';
import type { Overview } from './schemas.ts';

/** Routes that are looked at before other work gets its turn. */
const STRIDE = 1000;

/** What there is and what it does, in numbers, as far as the principal may see it. */
export async function overviewOf({ registry, view }: ApiContext, principal: Principal): Promise<Overview> {
  const agents = await groupAgents(registry.sessions(), ({ accountId }) => maySee(principal, accountId));
  let tunnels = 0;
  let endpoints = 0;
  let seen = 0;
  for (const route of registry.routes()) {
    seen += 1;
    if (seen % STRIDE === 0) await turn();
    if (!maySee(principal, route.accountId)) continue;
    tunnels += 1;
    endpoints += route.endpoints.length;
  }
  const counts = {
    agents: agents.length,
    sessions: agents.reduce((sum, { sessions }) => sum + sessions.length, 0),
    tunnels,
    endpoints,
    accounts: new Set(agents.map(({ accountId }) => accountId)).size,
  };
  if (principal.accountId !== undefined) return { ...counts, cluster: null, partial: [] };
  const nodes = registry.nodes();
  const { figures, partial } = await view.figures(nodes.map(({ nodeId }) => nodeId));
  const answers = [...figures.values()];
  const draining = nodes.filter(({ state }) => state === 'draining').length;
  return {
    ...counts,
    cluster: {
      nodes: { total: nodes.length, up: nodes.length - draining, draining },
      visitors: sum(answers, ({ visitors }) => visitors),
      streams: sum(answers, ({ streams }) => streams),
      rates: sumOfRates(answers),
    },
    partial,
  };
}

function sumOfRates(answers: readonly NodeFigures[]): Traffic {
  return {
    requests: sum(answers, ({ rates }) => rates.requests),
    errors: sum(answers, ({ rates }) => rates.errors),
    relayed: sum(answers, ({ rates }) => rates.relayed),
    bytesIn: sum(answers, ({ rates }) => rates.bytesIn),
    bytesOut: sum(answers, ({ rates }) => rates.bytesOut),
  };
}

function sum(answers: readonly NodeFigures[], of: (figures: NodeFigures) => number): number {
  return answers.reduce((total, figures) => total + of(figures), 0);
}
