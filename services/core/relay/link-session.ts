import type { TLSSocket } from 'node:tls';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { Session, type SessionHandler } from '../../../shared/protocol/session.ts';

/** What both ends of a relay link need. Times in milliseconds. */
export interface LinkSessionOptions {
  /** Received bytes of all sessions of the process. */
  readonly processBudget: ByteBudget;
  /** Received bytes that one link may hold, within the process's budget. Default 256 MiB. */
  readonly linkBuffer?: number;
  /** Streams at once on one link, which carries the requests of all tunnels between two nodes. Default 65,536. */
  readonly maxStreams?: number;
  /** Default 1,000 (DESIGN.md section 4, invariant 6). */
  readonly heartbeatInterval?: number;
  /** Default 2,750: silence is looked at each 250 ms, so that a dead peer is known within 3 s. */
  readonly deadAfter?: number;
  /** Last stream id of a link. Default LAST_STREAM_ID. */
  readonly lastStreamId?: number;
}

const LINK_BUFFER = 256 * 1024 * 1024;
const MAX_STREAMS = 65_536;
const HEARTBEAT_INTERVAL = 1000;
const DEAD_AFTER = 2750;

/** A session on a relay link. Both ends are nodes of the cluster and send heartbeats by themselves. */
export function linkSession(
  socket: TLSSocket,
  role: 'opener' | 'acceptor',
  options: LinkSessionOptions,
  handler: SessionHandler,
): Session {
  const heartbeatInterval = options.heartbeatInterval ?? HEARTBEAT_INTERVAL;
  return new Session(socket, handler, {
    role,
    maxStreams: options.maxStreams ?? MAX_STREAMS,
    budget: new ByteBudget(options.linkBuffer ?? LINK_BUFFER, options.processBudget),
    heartbeatInterval,
    deadAfter: options.deadAfter ?? DEAD_AFTER,
    // Within the interval, for the next heartbeat starts the time for an answer anew.
    probeTimeout: heartbeatInterval / 2,
    ...(options.lastStreamId === undefined ? {} : { lastStreamId: options.lastStreamId }),
  });
}
