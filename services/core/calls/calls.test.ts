import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { CALLS } from '../../../shared/control/calls.ts';
import type { NodeFigures } from '../../../shared/control/figures.ts';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import { createLogger } from '../../../shared/observability/logger.ts';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { rows } from '../../../shared/protocol/vectors/spec.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import { until } from '../../../shared/testkit/eventually.ts';
import { startFaultProxy } from '../../../shared/testkit/fault-proxy.ts';
import { RecordingSink, sessionPair } from '../../../shared/testkit/session-pair.ts';
import { clusterIdentity } from '../../../shared/tls/cluster-identity.ts';
import { RelayLinks } from '../relay/relay-links.ts';
import { RelayListener } from '../relay/relay-listener.ts';
import { type CallHandlers, CallServer } from './call-server.ts';
import { NodeCalls } from './node-calls.ts';

const SECRET = 'a cluster secret of thirty-two bytes or more';
const log = createLogger({ level: 'silent', name: 'test' });
const [A, B] = ['a' as NodeId, 'b' as NodeId];

const FIGURES: NodeFigures = {
  ...{ nodeId: 'b', version: '1', startedAt: 1, ready: true, checks: { serving: true }, draining: false },
  ...{ sessions: 1, visitors: 2, streams: 3, cpu: 0.5, latency: null, links: [] },
  rates: { requests: 1.5, errors: 0, relayed: 0, bytesIn: 0, bytesOut: 0 },
  totals: { requests: 9, errors: 0, relayed: 0, bytesIn: 0, bytesOut: 0 },
  eventLoopLag: { p50: 0, p99: 0, max: 0 },
  memory: { rss: 1, heapUsed: 1, buffered: 0 },
  registry: { available: true, problem: null, tunnels: 0, endpoints: 0, sessions: 0 },
};

const HANDLERS: CallHandlers = {
  inspect: () => FIGURES,
  sessions: ({ ids }) => ({
    sessions: ids.map((id) => ({
      ...{ id, epoch: 1, remoteAddress: '::1', version: 'x'.repeat(300), draining: false, roundTrip: null },
      ...{ streams: 0, requests: 0, bytesIn: 0, bytesOut: 0 },
    })),
  }),
  kick: () => ({ sessions: 0 }),
  drain: () => ({ draining: true, sessions: 1 }),
  undrain: () => ({ draining: false, sessions: 1 }),
};

/** Node a with a link to node b, which answers with these handlers. */
async function twoNodes(t: TestContext, handlers: Partial<CallHandlers> = {}) {
  const server = new CallServer({ ...HANDLERS, ...handlers }, log);
  const processBudget = new ByteBudget(64 * 1024 * 1024);
  const requests: string[] = [];
  const listener = new RelayListener({
    ...{ host: '127.0.0.1', port: 0, identity: await clusterIdentity(SECRET, B), log, processBudget },
    pickLocal: (head) => {
      requests.push(head.target);
      return undefined;
    },
    onCall: (peer, stream, head, body, end) => {
      assert.equal(peer, A);
      return server.accept(peer, stream, head, body, end);
    },
  });
  await listener.listen();
  const proxy = await startFaultProxy(listener.address.port);
  const links = new RelayLinks({
    ...{ nodeId: A, identity: await clusterIdentity(SECRET, A), log, processBudget, onChange: () => {} },
  });
  t.after(async () => {
    await links.close(0);
    await listener.drain(0);
    await proxy.close();
  });
  links.setPeers([{ nodeId: B, relayAddr: `127.0.0.1:${proxy.port}` }]);
  await until('the link is up', () => links.upstream(B)?.available === true);
  const link = links.upstream(B);
  assert.ok(link !== undefined);
  const own = new CallServer({ ...HANDLERS, inspect: () => ({ ...FIGURES, nodeId: 'a' }) }, log);
  return { calls: new NodeCalls(A, own, (node) => links.upstream(node)), link, listener, proxy, requests };
}

function failsWith(code: ErrorCode, message: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CulvertError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  };
}

describe('a call between nodes', () => {
  test('is answered by the node that it is for, this one or another', async (t) => {
    const { calls } = await twoNodes(t);
    assert.deepEqual(await calls.call(B, 'inspect', {}), FIGURES);
    assert.equal((await calls.call(A, 'inspect', {})).nodeId, 'a');
  });

  test('brings answers that are larger than a window whole', async (t) => {
    const { calls, link } = await twoNodes(t);
    const ids = Array.from({ length: 2000 }, (_, i) => `agent-${i}/i/0`);
    const { sessions } = await calls.call(B, 'sessions', { ids });
    assert.deepEqual(
      sessions.map(({ id }) => id),
      ids,
    );
    await until('the stream is over', () => link.load === 0);
  });

  test('fails with the error of the node that answers', async (t) => {
    const { calls } = await twoNodes(t, {
      kick: () => {
        throw new CulvertError('not_found', 'no such session');
      },
      inspect: () => {
        throw new Error('a password');
      },
    });
    const whose = { kind: 'account', accountId: 'acme' } as const;
    await assert.rejects(
      calls.call(B, 'kick', { whose, code: 'kicked', reason: '' }),
      failsWith('not_found', /^no such session$/),
    );
    await assert.rejects(calls.call(B, 'inspect', {}), failsWith('internal_error', /^the node failed to answer$/));
  });

  test('is checked by the node that answers, whatever the caller lets through', async (t) => {
    const { calls } = await twoNodes(t, { kick: () => assert.fail('it was not checked') });
    const whose = { kind: 'account', accountId: '' } as const;
    await assert.rejects(
      calls.call(B, 'kick', { whose, code: 'kicked', reason: '' }),
      failsWith('bad_request', /accountId/),
    );
    const reason = 'x'.repeat(70_000);
    await assert.rejects(
      calls.call(B, 'kick', { whose: { kind: 'account', accountId: 'acme' }, code: 'kicked', reason }),
      failsWith('body_too_large'),
    );
  });

  test('with an answer that is none fails, and so does one that is too large', async (t) => {
    const { calls } = await twoNodes(t, { inspect: () => ({ ...FIGURES, sessions: -1 }) });
    await assert.rejects(calls.call(B, 'inspect', {}), failsWith('invalid_frame'));
    const large = await twoNodes(t, { inspect: () => ({ ...FIGURES, version: 'x'.repeat(5_000_000) }) });
    await assert.rejects(large.calls.call(B, 'inspect', {}), failsWith('body_too_large'));
  });

  test('that is not answered ends at its deadline and leaves nothing behind', async (t) => {
    const late = Promise.withResolvers<NodeFigures>();
    const { calls, link, listener } = await twoNodes(t, { inspect: () => late.promise });
    await assert.rejects(calls.call(B, 'inspect', {}, 50), failsWith('timeout', /node b .* 50 ms/));
    await until('the stream is over at both ends', () => link.load === 0 && listener.streams === 0);
    late.resolve(FIGURES);
    assert.equal((await calls.call(B, 'inspect', {})).nodeId, 'b');
  });

  test('to a node that fell silent, or is gone, does not wait for longer than its deadline', async (t) => {
    const { calls, proxy, link } = await twoNodes(t);
    proxy.silence();
    await assert.rejects(calls.call(B, 'inspect', {}, 100), failsWith('timeout'));
    proxy.refuse();
    await until('the link is down', () => !link.available);
    await assert.rejects(calls.call(B, 'inspect', {}), failsWith('not_processed', /link to b is down/));
    await assert.rejects(calls.call('c' as NodeId, 'inspect', {}), failsWith('not_processed', /node c/));
  });

  test('above the limit of a node is refused, and the others are answered', async (t) => {
    const gate = Promise.withResolvers<NodeFigures>();
    let running = 0;
    const { calls } = await twoNodes(t, {
      inspect: () => {
        running += 1;
        return gate.promise;
      },
    });
    const many = Array.from({ length: 32 }, () => calls.call(B, 'inspect', {}, 20_000));
    await until('all run', () => running === 32);
    await assert.rejects(calls.call(B, 'inspect', {}), failsWith('overloaded'));
    gate.resolve(FIGURES);
    assert.equal((await Promise.all(many)).length, 32);
    assert.equal((await calls.call(B, 'inspect', {})).nodeId, 'b');
  });
});

describe('nobody but a node makes a call', () => {
  test('a request of a visitor stays a request, whatever its method, path and tunnel are', async (t) => {
    const { link, requests } = await twoNodes(t, { inspect: () => assert.fail('a visitor made a call') });
    for (const tunnel of ['demo', '']) {
      const sink = new RecordingSink();
      link.open({ method: 'CALL', target: '/inspect', tunnel, meta: '', headers: [] }, Buffer.from('{}'), true, sink);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.closed?.code, 'not_processed');
    }
    assert.deepEqual(requests, ['/inspect', '/inspect']);
  });

  test('an agent that sends one loses its session', async (t) => {
    const pair = await sessionPair();
    t.after(() => pair.close());
    const head = { method: 'CALL', target: '/inspect', tunnel: '', meta: '', headers: [] };
    pair.acceptor.openCall(head, Buffer.from('{}'), true, new RecordingSink());
    await until('the session is over', () => pair.opener.state === 'closed');
    assert.match(pair.openerEvents.join(), /closed invalid_frame/);
  });

  test('an agent that gets one refuses it', async (t) => {
    const pair = await sessionPair();
    t.after(() => pair.close());
    const sink = new RecordingSink();
    const head = { method: 'CALL', target: '/inspect', tunnel: '', meta: '', headers: [] };
    pair.opener.openCall(head, Buffer.from('{}'), true, sink);
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.closed?.code, 'unsupported_protocol');
    assert.equal(pair.accepted.length, 0);
  });

  test('an unknown call is not found', async (t) => {
    const { link } = await twoNodes(t);
    for (const target of ['/constructor', '/inspect/more', '/']) {
      const sink = new RecordingSink();
      link.openCall({ method: 'CALL', target, tunnel: '', meta: '', headers: [] }, Buffer.from('{}'), sink);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.closed?.code, 'not_found', target);
    }
  });
});

test('PROTOCOL.md lists the calls', () => {
  assert.deepEqual(
    rows('Relay links and calls').map(([name]) => name),
    Object.keys(CALLS),
  );
});
