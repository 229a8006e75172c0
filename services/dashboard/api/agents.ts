import { setImmediate as turn } from 'node:timers/promises';
import type { SessionRecord } from '../../../shared/registry/registry.ts';

/** The sessions of one agent. Two accounts may have agents of the same id. */
export interface AgentSessions {
  readonly agentId: string;
  readonly accountId: string;
  readonly sessions: SessionRecord[];
  /** Milliseconds since the Unix epoch: the oldest of them. */
  since: number;
}

/** Sessions that are looked at before other work gets its turn. */
const STRIDE = 1000;

/** The agents of these sessions that `matches` lets through, letting other work in between. */
export async function groupAgents(
  sessions: Iterable<SessionRecord>,
  matches: (session: SessionRecord) => boolean,
): Promise<AgentSessions[]> {
  const agents = new Map<string, AgentSessions>();
  let seen = 0;
  for (const session of sessions) {
    seen += 1;
    if (seen % STRIDE === 0) await turn();
    if (!matches(session)) continue;
    const { agentId, accountId, openedAt } = session;
    // No id holds white space.
    const key = `${accountId} ${agentId}`;
    const agent = agents.get(key);
    if (agent === undefined) agents.set(key, { agentId, accountId, sessions: [session], since: openedAt });
    else {
      agent.sessions.push(session);
      agent.since = Math.min(agent.since, openedAt);
    }
  }
  return [...agents.values()];
}
