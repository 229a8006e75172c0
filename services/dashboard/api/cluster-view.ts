import { type ClusterCalls, MAX_SESSIONS_ASKED } from '../../../shared/control/calls.ts';
import type { NodeFigures, SessionFigures } from '../../../shared/control/figures.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { NodeId, Registry, SessionRecord } from '../../../shared/registry/registry.ts';
import type { Missing } from './schemas.ts';

/** Milliseconds that a node has for its part of an answer. */
const DEADLINE = 1000;
/** Milliseconds that figures of a node are good for: many readers ask it no more often than one. */
const FRESH = 1000;

interface Asked {
  readonly until: number;
  readonly figures: Promise<NodeFigures | Missing>;
}

/** What the nodes say of themselves, gathered. A node that does not answer in time is named instead of waited for. */
export class ClusterView {
  readonly #registry: Registry;
  readonly #calls: ClusterCalls;
  readonly #asked = new Map<NodeId, Asked>();

  constructor(registry: Registry, calls: ClusterCalls) {
    this.#registry = registry;
    this.#calls = calls;
  }

  /** Figures of these nodes, at most a second old. */
  async figures(
    nodeIds: readonly NodeId[],
  ): Promise<{ readonly figures: ReadonlyMap<string, NodeFigures>; readonly partial: Missing[] }> {
    this.#forget();
    const answers = await Promise.all(nodeIds.map((nodeId) => this.#figuresOf(nodeId)));
    const figures = new Map<string, NodeFigures>();
    const partial: Missing[] = [];
    for (const answer of answers) {
      if ('code' in answer) partial.push(answer);
      else figures.set(answer.nodeId, answer);
    }
    return { figures, partial };
  }

  /** Figures of these sessions by `id@epoch`, asked of the nodes that hold them. */
  async sessionFigures(
    sessions: readonly SessionRecord[],
  ): Promise<{ readonly figures: ReadonlyMap<string, SessionFigures>; readonly partial: Missing[] }> {
    const byNode = Map.groupBy(sessions, ({ nodeId }) => nodeId);
    const figures = new Map<string, SessionFigures>();
    const partial: Missing[] = [];
    const ask = async (nodeId: NodeId, held: readonly SessionRecord[]): Promise<void> => {
      try {
        for (let at = 0; at < held.length; at += MAX_SESSIONS_ASKED) {
          const ids = held.slice(at, at + MAX_SESSIONS_ASKED).map(({ id }) => id);
          const answer = await this.#calls.call(nodeId, 'sessions', { ids }, DEADLINE);
          for (const session of answer.sessions) figures.set(`${session.id}@${session.epoch}`, session);
        }
      } catch (error) {
        partial.push(missing(nodeId, error));
      }
    };
    await Promise.all([...byNode].map(([nodeId, held]) => ask(nodeId, held)));
    return { figures, partial };
  }

  #figuresOf(nodeId: NodeId): Promise<NodeFigures | Missing> {
    const known = this.#asked.get(nodeId);
    if (known !== undefined && known.until > performance.now()) return known.figures;
    const figures = this.#calls.call(nodeId, 'inspect', {}, DEADLINE).catch((error: unknown) => missing(nodeId, error));
    this.#asked.set(nodeId, { until: performance.now() + FRESH, figures });
    return figures;
  }

  /** Of nodes that left nothing is kept. */
  #forget(): void {
    if (this.#asked.size <= this.#registry.nodes().length) return;
    const members = new Set(this.#registry.nodes().map(({ nodeId }) => nodeId));
    for (const nodeId of this.#asked.keys()) if (!members.has(nodeId)) this.#asked.delete(nodeId);
  }
}

function missing(nodeId: string, error: unknown): Missing {
  if (error instanceof CulvertError) return { nodeId, code: error.code, message: error.message };
  return { nodeId, code: 'internal_error', message: 'the node could not be asked' };
}
