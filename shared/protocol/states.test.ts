import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  nextSessionState,
  nextStreamState,
  type SessionEvent,
  type SessionState,
  type StreamEvent,
  type StreamState,
} from './states.ts';
import { rows } from './vectors/spec.ts';

const STREAM_STATES: readonly StreamState[] = ['open', 'half-closed-local', 'half-closed-remote', 'closed'];
const STREAM_EVENTS: readonly StreamEvent[] = ['send-end', 'receive-end', 'close'];
const SESSION_STATES: readonly SessionState[] = ['handshake', 'open', 'draining', 'closed'];
const SESSION_EVENTS: readonly SessionEvent[] = ['authenticated', 'go-away', 'close'];

describe('the states in PROTOCOL.md', () => {
  test('of a stream have exactly the transitions of the code', () => {
    const actual = STREAM_STATES.map((state) => [
      state,
      ...STREAM_EVENTS.map((event) => nextStreamState(state, event) ?? '—'),
    ]);
    assert.deepEqual(rows('Stream states'), actual);
  });

  test('of a session have exactly the transitions of the code', () => {
    const actual = SESSION_STATES.map((state) => [
      state,
      ...SESSION_EVENTS.map((event) => nextSessionState(state, event) ?? '—'),
    ]);
    assert.deepEqual(rows('Session states'), actual);
  });
});

describe('the states', () => {
  test('let nothing out of closed', () => {
    for (const event of STREAM_EVENTS) assert.equal(nextStreamState('closed', event), undefined);
    for (const event of SESSION_EVENTS) assert.equal(nextSessionState('closed', event), undefined);
  });

  test('close from everywhere else', () => {
    for (const state of STREAM_STATES.slice(0, -1)) assert.equal(nextStreamState(state, 'close'), 'closed');
    for (const state of SESSION_STATES.slice(0, -1)) assert.equal(nextSessionState(state, 'close'), 'closed');
  });

  test('of a stream need both ends, in either order, to close without a close', () => {
    for (const [first, second] of [
      ['send-end', 'receive-end'],
      ['receive-end', 'send-end'],
    ] as const) {
      const half = nextStreamState('open', first);
      assert.ok(half !== undefined && half !== 'closed');
      assert.equal(nextStreamState(half, first), undefined);
      assert.equal(nextStreamState(half, second), 'closed');
    }
  });
});
