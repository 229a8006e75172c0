import {
  CALL_DEADLINE,
  type CallAnswer,
  type CallArguments,
  type CallName,
  type ClusterCalls,
} from '../../../shared/control/calls.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import { type CallLink, callPeer } from './call-client.ts';
import type { CallServer } from './call-server.ts';

/** Asks this node directly and the others over their relay links. */
export class NodeCalls implements ClusterCalls {
  readonly nodeId: NodeId;
  readonly #server: CallServer;
  readonly #linkTo: (nodeId: NodeId) => CallLink | undefined;

  constructor(nodeId: NodeId, server: CallServer, linkTo: (nodeId: NodeId) => CallLink | undefined) {
    this.nodeId = nodeId;
    this.#server = server;
    this.#linkTo = linkTo;
  }

  async call<N extends CallName>(
    nodeId: NodeId,
    name: N,
    args: CallArguments<N>,
    deadline = CALL_DEADLINE,
  ): Promise<CallAnswer<N>> {
    if (nodeId === this.nodeId) return this.#server.answer(name, args);
    const link = this.#linkTo(nodeId);
    if (link === undefined) throw new CulvertError('not_processed', `there is no relay link to node ${nodeId}`);
    return callPeer(link, name, args, deadline);
  }
}
