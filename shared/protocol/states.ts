/**
 * The two state machines of the protocol (PROTOCOL.md section 5) as tables: what is not in a table is a fault.
 */
export type StreamState = 'open' | 'half-closed-local' | 'half-closed-remote' | 'closed';
export type StreamEvent = 'send-end' | 'receive-end' | 'close';

const STREAM: Record<StreamState, Partial<Record<StreamEvent, StreamState>>> = {
  open: { 'send-end': 'half-closed-local', 'receive-end': 'half-closed-remote', close: 'closed' },
  'half-closed-local': { 'receive-end': 'closed', close: 'closed' },
  'half-closed-remote': { 'send-end': 'closed', close: 'closed' },
  closed: {},
};

/** The state after the event, or undefined when the event is not allowed there. */
export function nextStreamState(state: StreamState, event: StreamEvent): StreamState | undefined {
  return STREAM[state][event];
}

/** `handshake`: only authentication and heartbeats pass. `draining`: no new streams; those open go on. */
export type SessionState = 'handshake' | 'open' | 'draining' | 'closed';
export type SessionEvent = 'authenticated' | 'go-away' | 'close';

const SESSION: Record<SessionState, Partial<Record<SessionEvent, SessionState>>> = {
  handshake: { authenticated: 'open', close: 'closed' },
  open: { 'go-away': 'draining', close: 'closed' },
  draining: { 'go-away': 'draining', close: 'closed' },
  closed: {},
};

/** The state after the event, or undefined when the event is not allowed there. */
export function nextSessionState(state: SessionState, event: SessionEvent): SessionState | undefined {
  return SESSION[state][event];
}
