import type { NodeId } from '../../shared/registry/registry.ts';
import type { ServerRow } from './servers-state.ts';

/** Which slot of HAProxy stands for which node, and what to say to HAProxy so that it is so. */

/** A node, or several that follow each other at one address: a restart can be seen before the end of what it replaces. */
export interface SlotTarget {
  readonly nodeIds: readonly NodeId[];
  /** IPv4 or IPv6. */
  readonly address: string;
  readonly publicPort: number;
  readonly agentPort: number;
  readonly healthPort: number;
  readonly draining: boolean;
}

export interface SlotPlan {
  readonly commands: readonly string[];
  /** The server of each node. */
  readonly servers: ReadonlyMap<NodeId, string>;
  /** Nodes for which no slot is left. */
  readonly unplaced: readonly NodeId[];
  readonly free: number;
}

/** The backends of haproxy.cfg; the first one says which slots are taken. */
const BACKENDS = [
  { name: 'cores', port: 'publicPort' },
  { name: 'cores_h2', port: 'publicPort' },
  { name: 'agent_cores', port: 'agentPort' },
] as const;

/**
 * HAProxy itself keeps which slot is whose: a node has the slot with its address. So nothing is forgotten when edge-sync
 * restarts, and two of them agree.
 *
 * Nobody is taken away on the registry's word alone: a node that it does not know (any more) gets no new visitors while
 * another is up, and its slot is given up only when HAProxy finds it dead as well, or has to make room.
 */
export function planSlots(rows: readonly ServerRow[], targets: readonly SlotTarget[]): SlotPlan {
  const slots = rows.filter(({ backend }) => backend === BACKENDS[0].name);
  const taken = new Map<string, SlotTarget>();
  const waiting: SlotTarget[] = [];
  for (const target of targets) {
    const slot = slots.find((each) => !taken.has(each.server) && isAt(each, target, target.publicPort));
    if (slot === undefined) waiting.push(target);
    else taken.set(slot.server, target);
  }
  const left = slots.filter(({ server }) => !taken.has(server)).sort((a, b) => worth(a) - worth(b));
  const unplaced: NodeId[] = [];
  for (const target of waiting) {
    const slot = left.shift();
    if (slot === undefined) unplaced.push(...target.nodeIds);
    else taken.set(slot.server, target);
  }
  const isAnyUp = slots.some(({ isUp, admin }) => isUp && admin !== 'maint');
  const hasOther = slots.some((slot) => {
    const target = taken.get(slot.server);
    return target?.draining === false && slot.isUp && slot.admin !== 'maint' && isAt(slot, target, target.publicPort);
  });
  const commands: string[] = [];
  for (const { server } of slots) {
    const target = taken.get(server);
    for (const { name, port } of BACKENDS) {
      const row = rows.find((each) => each.backend === name && each.server === server);
      if (row === undefined) continue;
      if (target === undefined) commands.push(...release(row, hasOther));
      else commands.push(...place(row, target, target[port], hasOther, isAnyUp));
    }
  }
  const servers = new Map<NodeId, string>();
  for (const [server, { nodeIds }] of taken) for (const nodeId of nodeIds) servers.set(nodeId, server);
  return { commands, servers, unplaced, free: left.filter(({ admin }) => admin === 'maint').length };
}

/** Slots in the order in which they are given away: empty ones, those of dead nodes, those of nodes that still answer. */
function worth({ admin, isUp }: ServerRow): number {
  return admin === 'maint' ? 0 : isUp ? 2 : 1;
}

function isAt(row: ServerRow, { address }: SlotTarget, port: number): boolean {
  return row.address === address && row.port === port;
}

function place(row: ServerRow, target: SlotTarget, port: number, hasOther: boolean, isAnyUp: boolean): string[] {
  const name = `${row.backend}/${row.server}`;
  const wanted = target.draining && hasOther ? 'drain' : 'ready';
  const commands: string[] = [];
  let { admin } = row;
  if (!isAt(row, target, port)) {
    // What HAProxy knows of the health of another node must not be taken for this one's.
    if (admin !== 'maint') commands.push(`set server ${name} state maint`);
    admin = 'maint';
    commands.push(`set server ${name} addr ${target.address} port ${port}`);
  }
  if (row.checkPort !== target.healthPort) commands.push(`set server ${name} check-port ${target.healthPort}`);
  if (admin !== wanted) {
    commands.push(`set server ${name} state ${wanted}`);
    // A node joins shortly before its ports are open: with others there it waits for its first good checks.
    if (admin === 'maint' && isAnyUp) commands.push(`set server ${name} health down`);
  }
  return commands;
}

function release({ backend, server, admin, isUp }: ServerRow, hasOther: boolean): string[] {
  if (admin === 'maint') return [];
  if (!isUp) return [`set server ${backend}/${server} state maint`];
  return admin === 'ready' && hasOther ? [`set server ${backend}/${server} state drain`] : [];
}
