/** The agent as a library: `connect` keeps sessions to a core and serves tunnels from this process or another. */
export type { TunnelPolicy } from '../../shared/policy/tunnel-policy.ts';
export { type AgentEvents, type AgentHandle, connect } from './agent.ts';
export type { RequestInfo } from './forward/exchange.ts';
export type { AgentOptions, ServerAddress, TlsOptions, TunnelSpec } from './options.ts';
export type { SlotState } from './slot.ts';
