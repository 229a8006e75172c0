import { z } from 'zod';
import { isErrorCode } from '../errors/codes.ts';
import type { NodeId } from '../registry/registry.ts';
import { Count, NodeFigures, SessionFigures } from './figures.ts';

/**
 * The calls that nodes of a cluster answer each other (PROTOCOL.md section 14), and a node answers itself. Each can be repeated
 * without harm. Adding one: an entry here and its handler in services/core/calls/handlers.ts.
 */

/** Session ids in one question or answer. */
export const MAX_SESSIONS_ASKED = 2000;

const sessionId = z.string().min(1).max(1024);
const id = z.string().min(1).max(128);

const SessionRef = z.object({ id: sessionId, epoch: z.int().min(0) });

/** Whose sessions: exactly one, all of an agent, or all of an account. */
const Whose = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('session'), session: SessionRef }),
  z.object({ kind: z.literal('agent'), agentId: id, accountId: id }),
  z.object({ kind: z.literal('account'), accountId: id }),
]);

const DrainState = z.object({ draining: z.boolean(), sessions: Count });

export const CALLS = {
  /** The node's figures now. */
  inspect: { arguments: z.object({}), answer: NodeFigures },
  /** Figures of those of these sessions that the node holds; of others nothing is said. */
  sessions: {
    arguments: z.object({ ids: z.array(sessionId).max(MAX_SESSIONS_ASKED) }),
    answer: z.object({ sessions: z.array(SessionFigures).max(2 * MAX_SESSIONS_ASKED) }),
  },
  /** Ends sessions now; what was in flight on them is cut off. The agent is told the code and the reason. */
  kick: {
    arguments: z.object({
      whose: Whose,
      code: z.string().refine(isErrorCode, 'is not an error code'),
      reason: z.string().max(256),
    }),
    answer: z.object({ sessions: Count }),
  },
  /**
   * Takes the node out of use while it runs on (services/core/drain.ts). Answered when the others know and the agents have been
   * told, not when they are gone. `deadline`: for streams on their sessions; without it the node's drain-timeout.
   */
  drain: { arguments: z.object({ deadline: z.int().min(0).max(86_400_000).optional() }), answer: DrainState },
  undrain: { arguments: z.object({}), answer: DrainState },
} as const satisfies Record<string, { readonly arguments: z.ZodType; readonly answer: z.ZodType }>;

export type CallName = keyof typeof CALLS;
export type CallArguments<N extends CallName> = z.output<(typeof CALLS)[N]['arguments']>;
export type CallAnswer<N extends CallName> = z.output<(typeof CALLS)[N]['answer']>;

export function isCallName(name: string): name is CallName {
  return Object.hasOwn(CALLS, name);
}

/** Milliseconds that a node has for its answer unless said otherwise. */
export const CALL_DEADLINE = 2000;

/** The nodes of the cluster, to be asked. */
export interface ClusterCalls {
  /** This node. */
  readonly nodeId: NodeId;
  /**
   * Asks a node, this one or another.
   * @param deadline milliseconds. Default CALL_DEADLINE
   * @throws CulvertError `timeout` when it does not answer in time, `not_processed` when there is no link to it now,
   * `invalid_frame` for an answer that is none, else the error that the node answered with.
   */
  call<N extends CallName>(nodeId: NodeId, name: N, args: CallArguments<N>, deadline?: number): Promise<CallAnswer<N>>;
}
