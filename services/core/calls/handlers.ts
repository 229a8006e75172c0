import type { CallArguments } from '../../../shared/control/calls.ts';
import type { NodeFigures, SessionFigures } from '../../../shared/control/figures.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import type { SessionId } from '../../../shared/registry/registry.ts';
import type { Drain } from '../drain.ts';
import type { HeldSession, SessionTable } from '../sessions/session-table.ts';
import type { CallHandlers } from './call-server.ts';

export interface CallHandlerOptions {
  readonly table: SessionTable;
  readonly drain: Drain;
  readonly figures: () => NodeFigures;
  readonly log: Logger;
}

/** What this node does for each call. */
export function callHandlers({ table, drain, figures, log }: CallHandlerOptions): CallHandlers {
  return {
    inspect: () => figures(),
    sessions: ({ ids }) => ({ sessions: table.withIds(new Set(ids)).flatMap(figuresOf) }),
    kick: ({ whose, code, reason }) => {
      const sessions = sessionsOf(table, whose);
      for (const session of sessions) session.close(code, reason);
      if (sessions.length > 0) log.warn({ whose, code, reason, sessions: sessions.length }, 'sessions were ended');
      return { sessions: sessions.length };
    },
    drain: async ({ deadline }) => {
      await drain.start(deadline);
      return { draining: drain.isDraining, sessions: table.size };
    },
    undrain: async () => {
      await drain.undo();
      return { draining: drain.isDraining, sessions: table.size };
    },
  };
}

function figuresOf({ figures }: HeldSession): SessionFigures[] {
  return figures === undefined ? [] : [figures];
}

function sessionsOf(table: SessionTable, whose: CallArguments<'kick'>['whose']): HeldSession[] {
  if (whose.kind === 'session') {
    const session = table.find({ ...whose.session, id: whose.session.id as SessionId });
    return session === undefined ? [] : [session];
  }
  return table
    .all()
    .filter(
      ({ accountId, agentId }) =>
        accountId === whose.accountId && (whose.kind === 'account' || agentId === whose.agentId),
    );
}
