import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type AgentHandle, type AgentOptions, connect } from '../../agent/index.ts';
import type { CoreNode } from '../../core/node.ts';
import { agentFor, BASE_DOMAIN, type Claims, SECRET, signToken, startCore, stateDir } from './tunnel.ts';

describe('accounts and tokens', () => {
  let core: CoreNode;
  let service: LocalService<unknown>;
  let other: LocalService<unknown>;
  let agents: AgentHandle[] = [];

  before(async () => {
    core = await startCore({ 'max-connections-per-account': '4' });
    service = await startHttpService((_request, response) => response.end('the service'));
    other = await startHttpService((_request, response) => response.end('another service'));
  });
  afterEach(async () => {
    await Promise.all(agents.map((agent) => agent.close(0)));
    agents = [];
  });
  after(async () => {
    await core.stop(0);
    await service.close();
    await other.close();
  });

  function start(token: AgentOptions['token'], options: Partial<AgentOptions> = {}): AgentHandle {
    const agent = connect({ ...agentFor(core, token, { app: service.url }), ...options });
    agents.push(agent);
    return agent;
  }

  async function startWith(claims: Claims, options: Partial<AgentOptions> = {}): Promise<AgentHandle> {
    return start(await signToken(claims), options);
  }

  async function text(name = 'app'): Promise<string> {
    return (await visit(`http://${name}.${BASE_DOMAIN}:${core.addresses.publicPort}`)).text;
  }

  test('a name that one account holds is refused to another, and the first goes on serving', async () => {
    await (await startWith({ accountId: 'first' })).ready;
    const thief = await startWith(
      { accountId: 'second', agentId: 'thief' },
      { tunnels: [{ name: 'app', url: other.url }] },
    );
    assert.equal((await thief.closed)?.code, 'tunnel_taken');
    await assert.rejects(thief.ready, { code: 'tunnel_taken' });
    for (let i = 0; i < 10; i += 1) assert.equal(await text(), 'the service');
  });

  test('an agent that is refused one name of two serves the other', async () => {
    await (await startWith({ accountId: 'first' })).ready;
    const half = await startWith(
      { accountId: 'second', agentId: 'half' },
      {
        tunnels: [
          { name: 'app', url: other.url },
          { name: 'own', url: other.url },
        ],
      },
    );
    const refused = once(half, 'refused') as Promise<[{ name: string; error: { code: string } }]>;
    const [{ name, error }] = await refused;
    assert.deepEqual([name, error.code], ['app', 'tunnel_taken']);
    await half.ready;
    assert.deepEqual([await text('own'), await text('app')], ['another service', 'the service']);
  });

  test('a name is free again once its holder has gone', async () => {
    const holder = await startWith({ accountId: 'first' });
    await holder.ready;
    await holder.close();
    await (await startWith({ accountId: 'second' }, { tunnels: [{ name: 'app', url: other.url }] })).ready;
    assert.equal(await text(), 'another service');
  });

  test('two processes with the same agent id both serve and never replace each other', async () => {
    const both = [await startWith({}), await startWith({})];
    let lost = 0;
    for (const agent of both) agent.on('disconnected', () => (lost += 1));
    await Promise.all(both.map((agent) => agent.ready));
    await wait(500);
    assert.equal(lost, 0);
    await both[0]?.close();
    for (let i = 0; i < 10; i += 1) assert.equal(await text(), 'the service');
  });

  for (const [what, claims, options] of [
    ['signed with another key', { secret: SECRET.toUpperCase() }, {}],
    ['that has expired', { issuedAt: Date.now() - 3_600_000, expires: 60 }, {}],
    ['of another agent', { agentId: 'somebody-else' }, { agentId: 'agent-1' }],
  ] as const) {
    test(`a token ${what} ends the agent with invalid_token, without another attempt`, async () => {
      const agent = await startWith(claims, options);
      let retries = 0;
      agent.on('disconnected', () => (retries += 1));
      assert.equal((await agent.closed)?.code, 'invalid_token');
      assert.equal(retries, 0);
    });
  }

  test('a custom domain is served only for a token that lists it', async () => {
    const tunnels = [{ name: 'shop.example.com', url: service.url }];
    const unproved = await startWith({}, { tunnels });
    const error = await unproved.closed;
    assert.equal(error?.code, 'invalid_name');
    assert.match(error.message, /--names shop\.example\.com/);
    await (await startWith({ names: 'shop.example.com' }, { tunnels })).ready;
    const url = `http://127.0.0.1:${core.addresses.publicPort}/`;
    assert.equal((await visit(url, { headers: { Host: 'shop.example.com' } })).text, 'the service');
  });

  test('a name that the token does not allow ends the agent with invalid_name', async () => {
    const agent = await startWith({ names: 'apps,shop' });
    assert.equal((await agent.closed)?.code, 'invalid_name');
  });

  test('an account gets as many connections as the limit allows, and the next when one is gone', async () => {
    const first = await startWith({ accountId: 'small', maxConnections: 2 }, { connections: 2 });
    await first.ready;
    await until('both are online', () => first.sessions.every(({ state }) => state === 'online'));
    const second = await startWith({ accountId: 'small', agentId: 'agent-2', maxConnections: 2 });
    const [{ error }] = (await once(second, 'disconnected')) as [{ error: { code: string } }];
    assert.equal(error.code, 'quota_exceeded');
    await first.close();
    await second.ready;
    assert.equal(await text(), 'the service');
  });

  test('the end of a token ends its sessions, once and for all', async () => {
    const agent = await startWith({ expires: 2 });
    let connected = 0;
    agent.on('connected', () => (connected += 1));
    await agent.ready;
    assert.equal(await text(), 'the service');
    assert.equal((await agent.closed)?.code, 'invalid_token');
    assert.equal(connected, 1);
    assert.notEqual(await text(), 'the service');
  });

  test('a token file that is rotated in time keeps the session', async () => {
    const path = join(stateDir, 'rotated-token');
    writeFileSync(path, await signToken({ expires: 2 }));
    const agent = start(() => readFileSync(path, 'utf8'));
    let connected = 0;
    agent.on('connected', () => (connected += 1));
    await agent.ready;
    writeFileSync(path, `${await signToken({ expires: 3600 })}\n`);
    await wait(2500);
    assert.equal(await text(), 'the service');
    assert.equal(connected, 1);
    assert.deepEqual(
      agent.sessions.map(({ state }) => state),
      ['online'],
    );
  });
});
