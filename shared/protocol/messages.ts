import { z } from 'zod';
import { CulvertError, isErrorCode } from '../errors/codes.ts';

/** The JSON payloads of control frames (PROTOCOL.md section 3). Unknown fields are ignored, so that peers may grow. */

/** Parts of the protocol that are agreed on in the authentication exchange. */
export const FEATURES = ['flow-control', 'go-away', 'spread', 'server-name'] as const;
/** How often an agent with `spread` lets itself be sent to another node before one has to keep the session. */
export const MAX_REDIRECTS = 2;
/** Without these two sides cannot work together. */
export const REQUIRED_FEATURES: readonly string[] = ['flow-control'];

const text = (most: number) => z.string().max(most);
const identifier = z.string().regex(/^[A-Za-z0-9._:@-]{1,128}$/, 'is not 1–128 of A–Z a–z 0–9 . _ : @ -');
const errorCode = z.string().refine(isErrorCode, 'is not an error code').optional();

export const AuthRequest = z.object({
  token: text(8192).min(1),
  agent_id: identifier.optional(),
  /** Random per agent process. */
  instance_id: identifier.optional(),
  slot: z.int().min(0).max(63).optional(),
  features: z.array(text(64)).max(32).optional(),
  version: text(64).optional(),
  /** How often the agent was sent elsewhere for this session. */
  redirects: z.int().min(0).max(100).optional(),
  /** How many sessions the process keeps. */
  sessions: z.int().min(1).max(64).optional(),
  /** Ids of nodes that have, or are about to have, the other sessions of the process. */
  other_nodes: z.array(text(128)).max(64).optional(),
  /** Ids of nodes that failed the agent just now. */
  failed_nodes: z.array(text(128)).max(16).optional(),
});
export type AuthRequest = z.infer<typeof AuthRequest>;

export const AuthResponse = z.object({
  success: z.boolean(),
  agentID: text(128).optional(),
  accountID: text(128).optional(),
  node_id: text(128).optional(),
  features: z.array(text(64)).max(32).optional(),
  /** When the core wants a heartbeat, milliseconds. */
  heartbeat_ms: z.int().min(10).max(3_600_000).optional(),
  /** Silence after which the core gives the session up, milliseconds. */
  dead_after_ms: z.int().min(20).max(7_200_000).optional(),
  /** Milliseconds since the Unix epoch: when the token ends, and with it the session unless it authenticates again. */
  expires_at: z.int().optional(),
  version: text(64).optional(),
  /** Without success: host:port of the node that should have this session instead. */
  redirect_to: text(512).optional(),
  /** With or instead of `redirect_to`: the name for SNI by which that node is reached through a balancer. */
  redirect_server_name: text(253).optional(),
  /** That node's id. */
  redirect_node: text(128).optional(),
  code: errorCode,
  message: text(1024).optional(),
});
export type AuthResponse = z.infer<typeof AuthResponse>;

export const TunnelRequest = z.object({
  subdomain: text(253).min(1),
  local_addr: text(512).optional(),
  healthy: z.boolean().optional(),
  /** Rules for the tunnel; what they may be is not the wire's matter (shared/policy). */
  policy: z.record(z.string(), z.unknown()).optional(),
});
export type TunnelRequest = z.infer<typeof TunnelRequest>;

export const TunnelResponse = z.object({
  subdomain: text(253),
  success: z.boolean(),
  public_url: text(1024).optional(),
  code: errorCode,
  message: text(1024).optional(),
});
export type TunnelResponse = z.infer<typeof TunnelResponse>;

export const GoAway = z.object({
  reason: text(256),
  /** Streams above this id were not processed and may be tried elsewhere. */
  last_stream_id: z.int().min(0).max(0xffff_ffff),
  /** Milliseconds until the connection is closed whatever is left on it. */
  deadline_ms: z.int().min(0).max(86_400_000),
  /** host:port to connect to instead, when there is a better one. */
  reconnect_to: text(512).optional(),
  /** With or instead of `reconnect_to`: the name for SNI by which that node is reached through a balancer. */
  reconnect_server_name: text(253).optional(),
  /** That node's id. */
  reconnect_node: text(128).optional(),
  code: errorCode,
});
export type GoAway = z.infer<typeof GoAway>;

export const ErrorMessage = z.object({ code: text(64), message: text(1024) });
export type ErrorMessage = z.infer<typeof ErrorMessage>;

/** @throws CulvertError `invalid_frame` that names the message and the field at fault */
export function parseMessage<T>(what: string, schema: z.ZodType<T>, payload: Buffer): T {
  let json: unknown;
  try {
    json = JSON.parse(payload.toString('utf8'));
  } catch {
    throw new CulvertError('invalid_frame', `${what}: the payload is not JSON`);
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new CulvertError(
    'invalid_frame',
    `${what}: ${issue?.path.join('.') || 'payload'}: ${issue?.message ?? 'invalid'}`,
  );
}
