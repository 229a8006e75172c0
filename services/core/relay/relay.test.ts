import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer, type Socket } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { createLogger } from '../../../shared/observability/logger.ts';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { INITIAL_WINDOW } from '../../../shared/protocol/frame.ts';
import type { RequestHead } from '../../../shared/protocol/heads.ts';
import type { SessionOptions } from '../../../shared/protocol/session.ts';
import type { Stream } from '../../../shared/protocol/stream-types.ts';
import { type NodeId, type SessionRef, sessionId } from '../../../shared/registry/registry.ts';
import { RecordingSink, type SessionPair, sessionPair } from '../../../shared/testkit/session-pair.ts';
import { type ClusterIdentity, clusterIdentity } from '../../../shared/tls/cluster-identity.ts';
import type { LinkSessionOptions } from './link-session.ts';
import { withEndpoint } from './meta.ts';
import { RelayLinks } from './relay-links.ts';
import { RelayListener } from './relay-listener.ts';

const SECRET = 'a cluster secret of thirty-two bytes or more';
const log = createLogger({ level: 'silent', name: 'test' });
const OK = { status: 200, reason: 'OK', headers: ['X-Dup', 'a', 'x-dup', 'b'] };

/** A TCP stretch between two nodes that can be cut, or swallow everything. */
class Wire {
  readonly port: number;
  readonly #sockets: Set<Socket>;

  private constructor(port: number, sockets: Set<Socket>) {
    this.port = port;
    this.#sockets = sockets;
  }

  static async to(t: TestContext, port: number): Promise<Wire> {
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connectTcp({ port, host: '127.0.0.1' });
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far).pipe(near);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    return new Wire((server.address() as AddressInfo).port, sockets);
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Nothing goes through any more, and nobody is told. */
  swallow(): void {
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.resume();
    }
  }
}

/** The relay parts of a node, and agent sessions with fake agents at their other ends. */
class TestNode {
  readonly id: NodeId;
  readonly listener: RelayListener;
  readonly links: RelayLinks;
  readonly agents = new Map<string, SessionPair>();
  readonly budget = new ByteBudget(64 * 1024 * 1024);
  readonly picked: (SessionRef | undefined)[] = [];
  readonly changes: string[] = [];
  #waiters: (() => void)[] = [];

  constructor(id: string, identity: ClusterIdentity, options: Partial<LinkSessionOptions>) {
    this.id = id as NodeId;
    const common = { identity, log, processBudget: this.budget, ...options };
    this.listener = new RelayListener({
      ...common,
      ...{ host: '127.0.0.1', port: 0 },
      pickLocal: (head, endpoint) => {
        this.picked.push(endpoint);
        return this.agents.get(head.tunnel)?.opener;
      },
      onCall: () => assert.fail('no call is made here'),
    });
    this.links = new RelayLinks({
      ...common,
      nodeId: this.id,
      onChange: (nodeId, up, reason) => {
        this.changes.push(`${nodeId} ${up ? 'up' : `down: ${reason}`}`);
        for (const waiter of this.#waiters.splice(0)) waiter();
      },
    });
  }

  get relayAddr(): string {
    return `127.0.0.1:${this.listener.address.port}`;
  }

  async untilChange(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiters.push(resolve));
  }

  /** @param port where the peer's relay is, when it is not reached directly */
  async linkTo(peer: TestNode, port?: number): Promise<void> {
    this.links.setPeers([{ nodeId: peer.id, relayAddr: port === undefined ? peer.relayAddr : `127.0.0.1:${port}` }]);
    await this.untilChange(() => this.links.upstream(peer.id)?.available === true);
  }

  async agent(t: TestContext, tunnel: string, options: Partial<SessionOptions> = {}): Promise<SessionPair> {
    const pair = await sessionPair(options);
    t.after(() => pair.close());
    this.agents.set(tunnel, pair);
    return pair;
  }

  /** As the proxy does for a visitor: opens a stream to the node that has the agent. */
  open(peer: TestNode, head: Partial<RequestHead> = {}, body?: Buffer, end = true) {
    const sink = new RecordingSink();
    const upstream = this.links.upstream(peer.id);
    assert.ok(upstream !== undefined);
    const full = { method: 'GET', target: '/', tunnel: 'demo', meta: '', headers: [], ...head };
    const stream = upstream.open(full, body, end, sink);
    sink.stream = stream;
    return { stream, sink };
  }
}

async function testNode(t: TestContext, id: string, options: Partial<LinkSessionOptions> = {}): Promise<TestNode> {
  const node = new TestNode(id, await clusterIdentity(SECRET, id), options);
  await node.listener.listen();
  t.after(async () => {
    await node.links.close(0);
    await node.listener.drain(0);
  });
  return node;
}

/** Node a with a link to node b, which has the agent of "demo". */
async function twoNodes(t: TestContext, options: Partial<LinkSessionOptions> = {}, budget?: ByteBudget) {
  const [a, b] = [await testNode(t, 'a', options), await testNode(t, 'b', options)];
  const agent = await b.agent(t, 'demo', budget === undefined ? {} : { budget });
  const wire = await Wire.to(t, b.listener.address.port);
  await a.linkTo(b, wire.port);
  return { a, b, agent, wire };
}

/** Writes everything, waiting whenever it is asked to. */
async function pump(stream: Stream, sink: RecordingSink, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += 40_000) {
    const seen = sink.writable;
    const last = at + 40_000 >= bytes.length;
    if (!stream.write(bytes.subarray(at, at + 40_000), last) && !last) await sink.until(() => sink.writable > seen);
  }
}

/** Writes until nothing is taken any more for a while. Returns the bytes written. */
async function fill(stream: Stream, sink: RecordingSink, settled: () => Promise<unknown>): Promise<number> {
  let written = 0;
  for (;;) {
    const seen = sink.writable;
    while (stream.write(Buffer.alloc(16_000), false)) written += 16_000;
    written += 16_000;
    for (let i = 0; i < 5; i += 1) await settled();
    if (sink.writable === seen) return written;
  }
}

describe('a relayed request', () => {
  test('and its answer arrive with heads, interim heads, bodies and trailers as they were sent', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const headers = ['Host', 'demo.localhost', 'Cookie', 'a=\xe9', 'cookie', '', 'X-Request-Id', 'r1'];
    const { stream, sink } = a.open(b, { method: 'PURGE', target: '/a?b=c', headers }, Buffer.from('first'), false);
    const far = await agent.acceptedAt(0);
    assert.deepEqual(far.head, { method: 'PURGE', target: '/a?b=c', tunnel: 'demo', meta: '', headers });
    stream.write(Buffer.from(' second'), false);
    stream.sendTrailers(['X-Sum', '1']);
    await far.sink.until(() => far.sink.trailers !== undefined);
    assert.equal(far.sink.body.toString(), 'first second');
    assert.deepEqual(far.sink.trailers, ['X-Sum', '1']);
    far.stream.sendHead({ status: 103, reason: 'Early Hints', headers: ['Link', '</a.css>'] }, undefined, false);
    far.stream.sendHead(OK, Buffer.from('an'), false);
    far.stream.write(Buffer.from('swer'), false);
    far.stream.sendTrailers(['Grpc-Status', '0']);
    await sink.until(() => sink.closed !== undefined);
    assert.deepEqual(
      sink.heads.map(({ status }) => status),
      [103, 200],
    );
    assert.deepEqual(sink.heads[1], OK);
    assert.equal(sink.body.toString(), 'answer');
    assert.deepEqual(sink.trailers, ['Grpc-Status', '0']);
    assert.deepEqual(sink.closed, { code: undefined, message: '' });
    assert.deepEqual(far.sink.closed, { code: undefined, message: '' });
    assert.equal(b.listener.streams, 0);
    assert.equal(a.links.states[0]?.streams, 0);
  });

  test('may switch protocols and carry raw bytes, each half with an end of its own', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { stream, sink } = a.open(b, { headers: ['Connection', 'Upgrade', 'Upgrade', 'x'] }, undefined, false);
    const far = await agent.acceptedAt(0);
    far.stream.sendHead({ status: 101, reason: '', headers: ['Upgrade', 'x'] }, Buffer.from('hi'), false);
    await sink.until(() => sink.body.toString() === 'hi');
    stream.write(Buffer.from([0, 255, 10]), false);
    await far.sink.until(() => far.sink.bytes === 3);
    far.stream.end();
    await sink.until(() => sink.ended);
    assert.equal(sink.closed, undefined);
    stream.write(Buffer.from([7]), true);
    await far.sink.until(() => far.sink.closed !== undefined);
    assert.deepEqual([...far.sink.body], [0, 255, 10, 7]);
    assert.deepEqual(far.sink.closed, { code: undefined, message: '' });
  });

  test('moves megabytes both ways at once with every byte in place', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const [up, down] = [randomBytes(6_000_000), randomBytes(8_000_000)];
    const { stream, sink } = a.open(b, {}, undefined, false);
    const far = await agent.acceptedAt(0);
    far.stream.sendHead(OK, undefined, false);
    await Promise.all([
      pump(stream, sink, up),
      pump(far.stream, far.sink, down),
      sink.until(() => sink.closed !== undefined),
      far.sink.until(() => far.sink.closed !== undefined),
    ]);
    assert.ok(sink.body.equals(down));
    assert.ok(far.sink.body.equals(up));
    assert.equal(a.budget.used + b.budget.used + agent.opener.held, 0);
  });

  test('has the first piece of its body passed on, be it small or large, and nothing of it is held', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    for (const [index, body] of [randomBytes(10_000), randomBytes(100_000)].entries()) {
      const { stream, sink } = a.open(b, { method: 'POST' }, body, false);
      const far = await agent.acceptedAt(index);
      await far.sink.until(() => far.sink.bytes === body.length);
      assert.ok(far.sink.body.equals(body));
      assert.equal(b.budget.used, 0);
      stream.end();
      await far.sink.until(() => far.sink.ended);
      far.stream.sendHead(OK, undefined, true);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.closed?.code, undefined);
    }
  });

  test('names the exact session to the other node, and the agent sees none of it', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const ref = { id: sessionId('agent', 'instance', 1), epoch: 42 };
    a.open(b, { meta: withEndpoint('proto=tcp', ref) });
    const far = await agent.acceptedAt(0);
    assert.deepEqual(b.picked, [ref]);
    assert.equal(far.head.meta, 'proto=tcp');
    const { sink } = a.open(b, { meta: 'session=nonsense' });
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.closed?.code, 'invalid_frame');
    assert.equal(agent.accepted.length, 1);
  });
});

describe('backpressure', () => {
  /** Room for one window, and too little for it to grow: then there is one bound for what may be held. */
  const NARROW = INITIAL_WINDOW + 100_000;

  test('of a slow visitor reaches the agent and keeps what is held within the windows', async (t) => {
    const { a, b, agent } = await twoNodes(t, { linkBuffer: NARROW }, new ByteBudget(NARROW));
    const { stream, sink } = a.open(b);
    sink.autoConsume = false;
    const far = await agent.acceptedAt(0);
    far.stream.sendHead(OK, undefined, false);
    const written = await fill(far.stream, far.sink, () => roundTrips(a, b, agent));
    assert.equal(sink.bytes, INITIAL_WINDOW);
    assert.equal(a.budget.used, INITIAL_WINDOW);
    assert.ok(agent.opener.held <= INITIAL_WINDOW, `${agent.opener.held} bytes are held`);
    // Two windows, and the queue behind each of the two senders: 64 KiB and one chunk more.
    assert.ok(written <= 2 * INITIAL_WINDOW + 2 * (64 * 1024 + 64 * 1024), `${written} bytes were taken`);
    sink.autoConsume = true;
    stream.consumed(sink.bytes);
    far.stream.end();
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.bytes, written);
    assert.equal(a.budget.used + b.budget.used + agent.opener.held, 0);
  });

  test('of a slow agent reaches the entry node', async (t) => {
    const { a, b, agent } = await twoNodes(t, { linkBuffer: NARROW }, new ByteBudget(NARROW));
    const { stream, sink } = a.open(b, { method: 'POST' }, undefined, false);
    const far = await agent.acceptedAt(0);
    far.sink.autoConsume = false;
    const written = await fill(stream, sink, () => roundTrips(a, b, agent));
    assert.equal(far.sink.bytes, INITIAL_WINDOW);
    assert.ok(b.budget.used <= INITIAL_WINDOW);
    assert.ok(written <= 2 * INITIAL_WINDOW + 2 * (64 * 1024 + 64 * 1024), `${written} bytes were taken`);
    far.sink.autoConsume = true;
    far.stream.consumed(far.sink.bytes);
    stream.end();
    await far.sink.until(() => far.sink.ended);
    assert.equal(far.sink.bytes, written);
    assert.equal(b.budget.used, 0);
  });

  test('of one stream leaves the others alone', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const slow = a.open(b);
    slow.sink.autoConsume = false;
    const far = await agent.acceptedAt(0);
    far.stream.sendHead(OK, Buffer.alloc(16_000), false);
    far.stream.write(Buffer.alloc(3 * INITIAL_WINDOW), true);
    await slow.sink.until(() => slow.sink.bytes === INITIAL_WINDOW);
    for (let i = 1; i <= 20; i += 1) await roundTrip(a, b, agent);
    assert.equal(slow.sink.bytes, INITIAL_WINDOW);
    slow.sink.autoConsume = true;
    slow.stream.consumed(slow.sink.bytes);
    await slow.sink.until(() => slow.sink.ended);
  });
});

/** A small request through the same link and agent session: what was sent before it has arrived. */
async function roundTrip(a: TestNode, b: TestNode, agent: SessionPair): Promise<void> {
  const index = agent.accepted.length;
  const { sink } = a.open(b);
  const far = await agent.acceptedAt(index);
  far.stream.sendHead(OK, undefined, true);
  await sink.until(() => sink.closed !== undefined);
}

async function roundTrips(a: TestNode, b: TestNode, agent: SessionPair): Promise<void> {
  for (let i = 0; i < 3; i += 1) await roundTrip(a, b, agent);
}

describe('the end of a relayed stream', () => {
  test('by either side is told to the other with its code and message', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const visitor = a.open(b, {}, undefined, false);
    const first = await agent.acceptedAt(0);
    visitor.stream.reset('canceled', 'the visitor went away');
    await first.sink.until(() => first.sink.closed !== undefined);
    assert.deepEqual(first.sink.closed, { code: 'canceled', message: 'the visitor went away' });

    const { sink } = a.open(b);
    const second = await agent.acceptedAt(1);
    second.stream.sendHead(OK, Buffer.from('half'), false);
    second.stream.reset('timeout', 'too slow');
    await sink.until(() => sink.closed !== undefined);
    assert.deepEqual(sink.closed, { code: 'timeout', message: 'too slow' });
    await roundTrip(a, b, agent);
    assert.equal(b.listener.streams + agent.opener.load, 0);
  });

  test('by an agent that does not want the rest of an upload is clean', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { stream, sink } = a.open(b, { method: 'POST' }, undefined, false);
    const far = await agent.acceptedAt(0);
    stream.write(Buffer.alloc(1000), false);
    far.stream.sendHead({ ...OK, status: 413 }, Buffer.from('too much'), true);
    far.stream.finish();
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.body.toString(), 'too much');
    assert.deepEqual(sink.closed, { code: undefined, message: '' });
    assert.equal(stream.isOpen, false);
    await roundTrip(a, b, agent);
    assert.equal(b.listener.streams + agent.opener.load, 0);
  });

  test('comes when the agent session is lost', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { sink } = a.open(b);
    await agent.acceptedAt(0);
    agent.sockets[1].destroy();
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.closed?.code, 'connection_closed');
  });

  test('is not_processed where nothing was handed to an agent', async (t) => {
    const { a, b } = await twoNodes(t);
    await b.agent(t, 'busy', { maxStreams: 1 });
    const none = a.open(b, { tunnel: 'other' });
    await none.sink.until(() => none.sink.closed !== undefined);
    assert.deepEqual(none.sink.closed, { code: 'not_processed', message: 'no agent session here' });
    a.open(b, { tunnel: 'busy' });
    const refused = a.open(b, { tunnel: 'busy' });
    await refused.sink.until(() => refused.sink.closed !== undefined);
    assert.equal(refused.sink.closed?.code, 'not_processed');
  });
});

describe('a relay link', () => {
  test('that is cut ends its streams on both sides, refuses new ones and comes back', async (t) => {
    const { a, b, agent, wire } = await twoNodes(t);
    const { sink } = a.open(b);
    const far = await agent.acceptedAt(0);
    const cut = a.untilChange(() => a.changes.length === 2);
    wire.cut();
    await cut;
    assert.equal(sink.closed?.code, 'connection_closed');
    assert.equal(a.links.upstream(b.id)?.available, false);
    assert.throws(() => a.open(b), { code: 'not_processed' });
    await far.sink.until(() => far.sink.closed !== undefined);
    assert.equal(far.sink.closed?.code, 'connection_closed');
    await a.untilChange(() => a.changes.length === 3);
    await roundTrip(a, b, agent);
    assert.deepEqual(
      a.changes.map((change) => change.split(':')[0]),
      ['b up', 'b down', 'b up'],
    );
  });

  test('that never lasts is dialled less and less often', async (t) => {
    const { a, b, wire } = await twoNodes(t);
    const waits: number[] = [];
    const seen = Promise.withResolvers<void>();
    const watching = Object.assign(Object.create(log), {
      debug: (fields: { wait?: number }) => {
        if (fields.wait !== undefined) waits.push(fields.wait);
        if (waits.length === 3) seen.resolve();
      },
    });
    const links = new RelayLinks({
      ...{ nodeId: a.id, identity: await clusterIdentity(SECRET, 'a'), log: watching, processBudget: a.budget },
      onChange: (_node, up) => up && wire.cut(),
      random: () => 1,
    });
    t.after(() => links.close(0));
    links.setPeers([{ nodeId: b.id, relayAddr: `127.0.0.1:${wire.port}` }]);
    await seen.promise;
    assert.deepEqual(waits.slice(0, 3), [100, 200, 400]);
  });

  test('is made with the newest certificate of either side, and goes on with the one it was made with', async (t) => {
    const { a, b, agent, wire } = await twoNodes(t);
    for (const part of [a.links, a.listener]) part.reloadTls(await clusterIdentity(SECRET, 'a'));
    // Of another cluster: whoever still uses the old one of its peer is found out.
    b.listener.reloadTls(await clusterIdentity(`${SECRET}!`, 'b'));
    await roundTrip(a, b, agent);
    wire.cut();
    await a.untilChange(() => a.changes.length === 2);
    a.links.reloadTls(await clusterIdentity(`${SECRET}!`, 'a'));
    await a.untilChange(() => a.changes.length === 3);
    await roundTrip(a, b, agent);
  });

  test('on which the peer goes silent is known to be dead within 3 s', async (t) => {
    const { a, b, agent, wire } = await twoNodes(t);
    const { sink } = a.open(b);
    const far = await agent.acceptedAt(0);
    const started = performance.now();
    wire.swallow();
    await a.untilChange(() => a.changes.length === 2);
    const took = performance.now() - started;
    assert.ok(took > 1000 && took < 3100, `${took} ms`);
    assert.equal(sink.closed?.code, 'connection_closed');
    await far.sink.until(() => far.sink.closed !== undefined);
    assert.ok(performance.now() - started < 3500);
  });

  test('comes up once the peer is there, and measures the round trip', async (t) => {
    const a = await testNode(t, 'a');
    const b = new TestNode('b', await clusterIdentity(SECRET, 'b'), {});
    const reserved = createServer();
    reserved.listen(0, '127.0.0.1');
    await once(reserved, 'listening');
    const { port } = reserved.address() as AddressInfo;
    await new Promise((resolve) => reserved.close(resolve));
    const up = a.linkTo(b, port);
    assert.equal(a.links.upstream(b.id)?.available, false);
    const wire = createServer((near) => {
      const far = connectTcp({ port: b.listener.address.port });
      for (const socket of [near, far]) socket.on('error', () => {});
      near.pipe(far).pipe(near);
    });
    await b.listener.listen();
    wire.listen(port, '127.0.0.1');
    t.after(async () => {
      wire.close();
      await a.links.close(0);
      await b.listener.drain(0);
    });
    await up;
    const [state] = a.links.states;
    assert.ok(state?.up === true && state.roundTrip !== undefined && state.roundTrip > 0);
    assert.deepEqual([...b.listener.peers], ['a']);
  });

  test('is replaced without a gap before its stream ids run out', async (t) => {
    // 20 streams: ids 1000 to 1038.
    const { a, b, agent } = await twoNodes(t, { lastStreamId: 1038 });
    for (let i = 0; i < 100; i += 1) {
      await roundTrip(a, b, agent);
      // What an event loop of a busy node has between two requests.
      if (i % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.deepEqual(a.changes, ['b up']);
  });

  test('to a node that leaves lets its streams end, and one to another address is dialled anew', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { sink } = a.open(b);
    const far = await agent.acceptedAt(0);
    a.links.setPeers([{ nodeId: b.id, relayAddr: 'no address' }]);
    assert.equal(a.links.upstream(b.id), undefined);
    await a.linkTo(b);
    await roundTrip(a, b, agent);
    far.stream.sendHead(OK, Buffer.from('late'), true);
    await sink.until(() => sink.closed !== undefined);
    assert.deepEqual([sink.body.toString(), sink.closed?.code], ['late', undefined]);
    a.links.setPeers([{ nodeId: a.id, relayAddr: a.relayAddr }]);
    assert.deepEqual(a.links.states, []);
  });

  test('may be one of several to a peer, of which the least loaded is used', async (t) => {
    const [a, b] = [await testNode(t, 'a'), await testNode(t, 'b')];
    await b.agent(t, 'demo');
    const identity = await clusterIdentity(SECRET, 'a');
    let up = 0;
    const ready = Promise.withResolvers<void>();
    const links = new RelayLinks({
      ...{ nodeId: a.id, identity, log, processBudget: a.budget, linksPerPeer: 3 },
      onChange: () => {
        up += 1;
        if (up === 3) ready.resolve();
      },
    });
    t.after(() => links.close(0));
    links.setPeers([{ nodeId: b.id, relayAddr: b.relayAddr }]);
    await ready.promise;
    for (let i = 0; i < 6; i += 1) {
      const head = { method: 'GET', target: '/', tunnel: 'demo', meta: '', headers: [] };
      links.upstream(b.id)?.open(head, undefined, true, new RecordingSink());
    }
    assert.deepEqual(
      links.states.map(({ streams }) => streams),
      [2, 2, 2],
    );
  });

  test('is drained by the node that has the agents: streams end, new ones go elsewhere', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { sink } = a.open(b);
    const far = await agent.acceptedAt(0);
    const drained = b.listener.drain(10_000);
    // Sent before the Go Away has arrived.
    const late = a.open(b);
    const farLate = await agent.acceptedAt(1);
    farLate.stream.sendHead(OK, Buffer.from('too'), true);
    await late.sink.until(() => late.sink.closed !== undefined);
    assert.equal(late.sink.body.toString(), 'too');
    assert.equal(a.links.upstream(b.id)?.available, false);
    assert.throws(() => a.open(b), { code: 'not_processed' });
    far.stream.sendHead(OK, Buffer.from('done'), true);
    await sink.until(() => sink.closed !== undefined);
    assert.equal(sink.body.toString(), 'done');
    await drained;
    assert.equal(agent.accepted.length, 2);
  });

  test('is closed by its node when the last stream is done, or at the deadline', async (t) => {
    const { a, b, agent } = await twoNodes(t);
    const { sink } = a.open(b);
    const far = await agent.acceptedAt(0);
    const closed = a.links.close(10_000);
    far.stream.sendHead(OK, undefined, true);
    await closed;
    assert.equal(sink.closed?.code, undefined);

    const c = await testNode(t, 'c');
    await c.linkTo(b);
    const cutOff = c.open(b);
    await agent.acceptedAt(1);
    await c.links.close(20);
    assert.equal(cutOff.sink.closed?.code, 'connection_closed');
  });
});

describe('the relay port', () => {
  test('lets in nobody without a certificate of this cluster', async (t) => {
    const b = await testNode(t, 'b');
    await b.agent(t, 'demo');
    const ours = await clusterIdentity(SECRET, 'a');
    const theirs = await clusterIdentity(`${SECRET}!`, 'a');
    const { port } = b.listener.address;
    const attempts = [
      {},
      { cert: theirs.cert, key: theirs.key },
      { cert: theirs.cert + theirs.ca, key: theirs.key },
      { cert: ours.cert, key: ours.key, maxVersion: 'TLSv1.2' as const, minVersion: 'TLSv1.2' as const },
    ];
    for (const attempt of attempts) {
      const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ...attempt });
      socket.on('error', () => {});
      let heard = 0;
      socket.on('data', (chunk) => {
        heard += chunk.length;
      });
      socket.write('GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n');
      await new Promise((resolve) => socket.once('close', resolve));
      assert.equal(heard, 0);
    }
    const plain = connectTcp({ port, host: '127.0.0.1' });
    plain.on('error', () => {});
    plain.resume();
    plain.write('GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n');
    await new Promise((resolve) => plain.once('close', resolve));
    assert.equal(b.listener.peers.size, 0);
    assert.deepEqual(b.picked, []);
  });

  test('is not linked to when another cluster, or another node, answers there', async (t) => {
    const a = await testNode(t, 'a');
    const c = await testNode(t, 'c');
    const foreign = new TestNode('b', await clusterIdentity(`${SECRET}!`, 'b'), {});
    await foreign.listener.listen();
    t.after(() => foreign.listener.drain(0));
    const refusals: string[] = [];
    const seen = Promise.withResolvers<void>();
    const watching = Object.assign(Object.create(log), {
      debug: (fields: { reason?: string }) => {
        refusals.push(fields.reason ?? '');
        if (refusals.length === 2) seen.resolve();
      },
    });
    for (const port of [c.listener.address.port, foreign.listener.address.port]) {
      const links = new RelayLinks({
        ...{ nodeId: a.id, identity: await clusterIdentity(SECRET, 'a'), log: watching, processBudget: a.budget },
        onChange: (_node, up) => assert.equal(up, false),
        random: () => 1,
      });
      t.after(() => links.close(0));
      links.setPeers([{ nodeId: 'b' as NodeId, relayAddr: `127.0.0.1:${port}` }]);
    }
    await seen.promise;
    const reasons = refusals.slice(0, 2).sort().join('; ');
    assert.match(reasons, /node c answers where b should be/);
    assert.match(reasons, /certificate/);
    assert.equal(c.listener.peers.size, 0);
    assert.equal(foreign.listener.peers.size, 0);
  });

  test('passes nothing on to a third node, which never sees a second hop', async (t) => {
    const { a, b } = await twoNodes(t);
    const c = await testNode(t, 'c');
    const agent = await c.agent(t, 'far');
    await b.linkTo(c);
    await roundTripOf('far', b, c, agent);
    const { sink } = a.open(b, { tunnel: 'far' });
    await sink.until(() => sink.closed !== undefined);
    assert.deepEqual(sink.closed, { code: 'not_processed', message: 'no agent session here' });
    assert.equal(c.picked.length, 1);
    assert.equal(agent.accepted.length, 1);
  });
});

async function roundTripOf(tunnel: string, from: TestNode, to: TestNode, agent: SessionPair): Promise<void> {
  const { sink } = from.open(to, { tunnel });
  const far = await agent.acceptedAt(0);
  far.stream.sendHead(OK, undefined, true);
  await sink.until(() => sink.closed !== undefined);
}
