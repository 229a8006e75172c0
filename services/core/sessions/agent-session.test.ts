import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { SignJWT } from 'jose';
import { createLogger } from '../../../shared/observability/logger.ts';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { FrameType } from '../../../shared/protocol/frame.ts';
import { Session } from '../../../shared/protocol/session.ts';
import { createMemoryRegistry } from '../../../shared/registry/memory/memory-registry.ts';
import type { NodeId, Registry } from '../../../shared/registry/registry.ts';
import { RecordingSink, socketPair } from '../../../shared/testkit/session-pair.ts';
import { AgentSession, type AgentSessionOptions } from './agent-session.ts';
import { SessionTable, type Way } from './session-table.ts';
import { createTokenVerifier } from './token-verifier.ts';

const SECRET = 'a secret that is long enough for HS256, surely';

interface Claims {
  readonly agentId?: string;
  readonly accountId?: string;
  /** Seconds from now. */
  readonly life?: number;
  readonly names?: string[];
}

function token({ agentId = 'laptop', accountId = 'acme', life = 3600, names }: Claims = {}): Promise<string> {
  return new SignJWT({ agent_id: agentId, account_id: accountId, ...(names === undefined ? {} : { names }) })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(Math.floor(Date.now() / 1000) + life)
    .sign(new TextEncoder().encode(SECRET));
}

/** The agent's side, frame by frame. */
interface Peer {
  readonly session: Session;
  readonly core: AgentSession;
  readonly messages: { type: number; flags: number; body: Record<string, unknown> }[];
  readonly events: string[];
  next(type: number): Promise<Record<string, unknown>>;
  until(condition: () => boolean): Promise<void>;
}

class Core {
  readonly registry: Registry = createMemoryRegistry();
  readonly table = new SessionTable();
  readonly #context: TestContext;

  constructor(context: TestContext) {
    this.#context = context;
    context.after(() => this.registry.close());
    this.registry.subscribe((event) => {
      if (event.type === 'session-replaced')
        this.table.find(event.session)?.drain('replaced', 1000, {
          code: 'session_replaced',
          keepServing: true,
        });
    });
  }

  async connect(options: Partial<AgentSessionOptions> = {}): Promise<Peer> {
    const [near, far] = await socketPair();
    const core = new AgentSession(far, '127.0.0.1', {
      registry: this.registry,
      table: this.table,
      verifier: createTokenVerifier({ secret: SECRET }, { clockTolerance: 0 }),
      log: createLogger({ level: 'silent', name: 'test' }),
      nodeId: 'node-1' as NodeId,
      version: '0.0.0',
      baseDomain: 'localhost',
      publicUrl: (name) => `http://${name}.localhost`,
      authTimeout: 2000,
      heartbeatInterval: 15_000,
      heartbeatTimeout: 30_000,
      maxConnections: 10,
      maxConnectionsPerAccount: 3,
      maxTunnelsPerAccount: 2,
      maxStreamsPerSession: 100,
      sessionBuffer: 1_000_000,
      processBudget: new ByteBudget(10_000_000),
      onAuthenticated: () => {},
      onRefused: () => {},
      ...options,
    });
    const messages: Peer['messages'] = [];
    const events: string[] = [];
    let waiters: (() => void)[] = [];
    const wake = (): void => {
      const woken = waiters;
      waiters = [];
      for (const waiter of woken) waiter();
    };
    const session = new Session(
      near,
      {
        onControl: (type, flags, payload) => {
          messages.push({ type, flags, body: JSON.parse(payload.toString()) as Record<string, unknown> });
          if (
            type === FrameType.AuthResponse &&
            session.state === 'handshake' &&
            messages.at(-1)?.body['success'] === true
          ) {
            session.authenticated();
          }
          wake();
        },
        onStream: (stream) => {
          stream.sendHead({ status: 200, reason: '', headers: [] }, undefined, true);
          return new RecordingSink();
        },
        onGoAway: (message) => {
          events.push(`go-away ${message.reason}`);
          wake();
        },
        onClosed: (code, message) => {
          events.push(`closed ${code}: ${message}`);
          wake();
        },
      },
      { role: 'acceptor' },
    );
    this.#context.after(() => {
      session.close(undefined, 'test over');
      near.destroy();
      far.destroy();
    });
    const until = async (condition: () => boolean): Promise<void> => {
      while (!condition()) await new Promise<void>((resolve) => waiters.push(resolve));
    };
    let seen = 0;
    return {
      session,
      core,
      messages,
      events,
      until,
      async next(type) {
        for (;;) {
          const at = messages.findIndex((message, index) => index >= seen && message.type === type);
          const found = messages[at];
          if (found !== undefined) {
            seen = at + 1;
            return found.body;
          }
          await new Promise<void>((resolve) => waiters.push(resolve));
        }
      },
    };
  }
}

async function authenticate(peer: Peer, jwt: string, extra: object = {}): Promise<Record<string, unknown>> {
  peer.session.send(FrameType.AuthRequest, 0, { token: jwt, features: ['flow-control', 'go-away'], ...extra });
  return peer.next(FrameType.AuthResponse);
}

async function register(peer: Peer, name: string, extra: object = {}): Promise<Record<string, unknown>> {
  peer.session.send(FrameType.RegisterTunnel, 0, { subdomain: name, local_addr: 'http://localhost:1', ...extra });
  return peer.next(FrameType.RegisterTunnel);
}

describe('an agent session', () => {
  test('lets an agent in, serves its tunnel, and takes both out of the registry when it ends', async (context) => {
    const core = new Core(context);
    const peer = await core.connect();
    const welcome = await authenticate(peer, await token());
    assert.equal(welcome['success'], true);
    assert.equal(welcome['agentID'], 'laptop');
    assert.equal(welcome['accountID'], 'acme');
    assert.equal((await register(peer, 'Api'))['public_url'], 'http://api.localhost');
    assert.equal(core.registry.lookup('api')?.accountId, 'acme');
    peer.session.close(undefined, 'done');
    const gone = new Promise<void>((resolve) => {
      core.registry.subscribe((event) => {
        if (event.type === 'route' && event.route === undefined) resolve();
      });
    });
    await gone;
    assert.equal(core.registry.lookup('api'), undefined);
    assert.equal(core.table.size, 0);
  });

  test('is closed when it does not authenticate in time', async (context) => {
    const peer = await new Core(context).connect({ authTimeout: 50 });
    await peer.until(() => peer.events.length > 0);
    assert.match(peer.events.join(), /closed timeout/);
  });

  test('is closed when it sends anything else first', async (context) => {
    const peer = await new Core(context).connect();
    peer.session.send(FrameType.RegisterTunnel, 0, { subdomain: 'api' });
    await peer.until(() => peer.events.length > 0);
    assert.match(peer.events.join(), /closed invalid_frame.*Auth Request/);
  });

  test('is refused with the reason when its token, its id or its features are wrong', async (context) => {
    const core = new Core(context);
    const cases: [string, object, string][] = [
      ['not a token', {}, 'invalid_token'],
      [await token({ life: -10 }), {}, 'invalid_token'],
      [await token(), { agent_id: 'other' }, 'invalid_token'],
      [await token(), { features: [] }, 'unsupported_protocol'],
    ];
    for (const [jwt, extra, code] of cases) {
      const peer = await core.connect();
      const answer = await authenticate(peer, jwt, extra);
      assert.equal(answer['success'], false);
      assert.equal(answer['code'], code);
      await peer.until(() => peer.events.length > 0);
    }
    assert.equal(core.table.size, 0);
  });

  test('is refused by a node that is draining, or sent to another when there is one', async (context) => {
    const core = new Core(context);
    const isDraining = (): boolean => true;
    const refused = await authenticate(await core.connect({ isDraining }), await token(), { redirects: 1 });
    assert.deepEqual([refused['success'], refused['code']], [false, 'node_draining']);
    const placeElsewhere = (): Way => ({
      nodeId: 'node-2' as NodeId,
      address: 'node-2:8443',
      serverName: 'node-2.agents.test',
    });
    const sent = await authenticate(await core.connect({ isDraining, placeElsewhere }), await token());
    assert.deepEqual(
      [sent['redirect_to'], sent['redirect_server_name'], sent['redirect_node']],
      ['node-2:8443', 'node-2.agents.test', 'node-2'],
    );
    assert.equal(core.table.size, 0);
    const kept = await authenticate(await core.connect({ isDraining: () => false }), await token());
    assert.equal(kept['success'], true);
  });

  test('tells who is at its other end and what went over it', async (context) => {
    const core = new Core(context);
    const peer = await core.connect();
    assert.equal(peer.core.figures, undefined);
    await authenticate(peer, await token(), { version: '9.8.7' });
    const sink = new RecordingSink();
    peer.core.upstream.open({ method: 'GET', target: '/', tunnel: 'x', meta: '', headers: [] }, undefined, true, sink);
    await sink.until(() => sink.closed !== undefined);
    const [held] = core.table.withIds(new Set([peer.core.ref?.id ?? '']));
    const figures = held?.figures;
    assert.ok(figures !== undefined);
    assert.deepEqual(
      [figures.remoteAddress, figures.version, figures.draining, figures.streams, figures.requests],
      ['127.0.0.1', '9.8.7', false, 0, 1],
    );
    assert.ok(figures.bytesIn > 100 && figures.bytesOut > 100, JSON.stringify(figures));
    peer.core.close('kicked', 'for a test');
    await peer.until(() => peer.events.length > 0);
    assert.match(peer.events.join(), /closed kicked.*for a test/);
  });

  test('is refused above the limits of the node and of the account', async (context) => {
    const core = new Core(context);
    for (let slot = 0; slot < 3; slot += 1) await authenticate(await core.connect(), await token(), { slot });
    const fourth = await authenticate(await core.connect(), await token(), { slot: 3 });
    assert.equal(fourth['code'], 'quota_exceeded');
    const other = await authenticate(await core.connect(), await token({ accountId: 'other' }), { instance_id: 'x' });
    assert.equal(other['success'], true);
    const full = await authenticate(await core.connect({ maxConnections: 4 }), await token({ accountId: 'third' }));
    assert.equal(full['code'], 'quota_exceeded');
  });

  test('says how its tunnel is served, and a rule that the core does not know refuses the tunnel alone', async (context) => {
    const core = new Core(context);
    const peer = await core.connect();
    await authenticate(peer, await token());
    await register(peer, 'api', { policy: { balance: 'sticky' } });
    assert.deepEqual(core.registry.lookup('api')?.policy, { balance: 'sticky' });
    const refused = await register(peer, 'shop', { policy: { balance: 'sticky', allow: ['10.0.0.0/8'] } });
    assert.deepEqual([refused['success'], refused['code']], [false, 'invalid_config']);
    assert.match(String(refused['message']), /allow/);
    assert.equal(core.registry.lookup('shop'), undefined);
    assert.equal((await register(peer, 'api'))['success'], true);
    assert.equal(core.registry.lookup('api')?.policy, undefined);
  });

  test('gets only names that its token allows and nobody else holds, up to its limit', async (context) => {
    const core = new Core(context);
    const owner = await core.connect();
    await authenticate(owner, await token());
    await register(owner, 'api');
    const peer = await core.connect();
    await authenticate(peer, await token({ accountId: 'other', agentId: 'b', names: ['api', 'dev-*', 'web'] }));
    assert.equal((await register(peer, 'shop'))['code'], 'invalid_name');
    assert.equal((await register(peer, 'no spaces'))['code'], 'invalid_name');
    assert.equal((await register(peer, 'api'))['code'], 'tunnel_taken');
    assert.equal((await register(peer, 'dev-1'))['success'], true);
    assert.equal((await register(peer, 'web'))['success'], true);
    assert.equal((await register(peer, 'dev-2'))['code'], 'quota_exceeded');
    peer.session.send(FrameType.UnregisterTunnel, 0, { subdomain: 'web' });
    assert.equal((await peer.next(FrameType.UnregisterTunnel))['success'], true);
    assert.equal((await register(peer, 'dev-2'))['success'], true);
    assert.equal(core.registry.lookup('api')?.accountId, 'acme');
  });

  test('ends with its token unless the agent brings a newer one', async (context) => {
    const core = new Core(context);
    const expiring = await core.connect();
    const renewed = await core.connect();
    await authenticate(expiring, await token({ life: 2 }), { instance_id: 'a' });
    await authenticate(renewed, await token({ life: 2 }), { instance_id: 'b' });
    const answer = await authenticate(renewed, await token({ life: 3600 }));
    assert.equal(answer['success'], true);
    await expiring.until(() => expiring.events.length > 0);
    assert.match(expiring.events.join(), /go-away the token has expired/);
    assert.deepEqual(renewed.events, []);
    assert.equal(renewed.session.state, 'open');
  });

  test('cannot be handed to another agent by a newer token', async (context) => {
    const peer = await new Core(context).connect();
    await authenticate(peer, await token());
    const answer = await authenticate(peer, await token({ accountId: 'other' }));
    assert.equal(answer['code'], 'invalid_token');
    await peer.until(() => peer.events.length > 0);
  });

  test('goes away when a newer session of its instance and slot is there, and the newer one serves', async (context) => {
    const core = new Core(context);
    const older = await core.connect();
    await authenticate(older, await token(), { instance_id: 'i' });
    await register(older, 'api');
    const newer = await core.connect();
    await authenticate(newer, await token(), { instance_id: 'i' });
    // Between the claim and the registration the tunnel is still the older session's.
    const [meanwhile] = core.registry.lookup('api')?.endpoints ?? [];
    assert.ok(meanwhile !== undefined && core.table.find(meanwhile.session) === older.core);
    await register(newer, 'api');
    await older.until(() => older.events.length > 0);
    assert.match(older.events.join(), /go-away replaced/);
    const endpoints = core.registry.lookup('api')?.endpoints ?? [];
    assert.equal(endpoints.length, 1);
    const [endpoint] = endpoints;
    assert.ok(endpoint !== undefined && core.table.find(endpoint.session) === newer.core);
  });

  test('asks to be replaced before its stream ids run out and serves on meanwhile', async (context) => {
    const core = new Core(context);
    const peer = await core.connect({ lastStreamId: 1018 });
    await authenticate(peer, await token());
    const send = async (): Promise<void> => {
      const sink = new RecordingSink();
      const head = { method: 'GET', target: '/', tunnel: 'api', meta: '', headers: [] };
      sink.stream = peer.core.upstream.open(head, undefined, true, sink);
      await sink.until(() => sink.closed !== undefined);
      assert.equal(sink.heads[0]?.status, 200);
    };
    for (let i = 0; i < 9; i += 1) await send();
    await peer.until(() => peer.events.length > 0);
    assert.match(peer.events.join(), /go-away the stream ids are nearly used up/);
    assert.equal(peer.core.upstream.available, false);
    await send();
    await assert.rejects(send, { code: 'not_processed' });
  });
});
