import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { SignJWT } from 'jose';
import type { z } from 'zod';
import type { CallAnswer, CallName, ClusterCalls } from '../../../shared/control/calls.ts';
import type { Role } from '../../../shared/control/principal.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import { createLogger } from '../../../shared/observability/logger.ts';
import { createMemoryRegistry } from '../../../shared/registry/memory/memory-registry.ts';
import type { NodeId, Registry } from '../../../shared/registry/registry.ts';
import { createApiTokenVerifier } from '../../../shared/tokens/api-token.ts';
import { bearerTokens } from './auth/bearer.ts';
import { AgentPage, NodePage, Overview, TunnelPage } from './schemas.ts';
import { type ApiServer, startApi } from './server.ts';

const SECRET = 'test-secret-with-at-least-32-bytes!';
const KEY = new TextEncoder().encode(SECRET);
const NODE = 'one' as NodeId;
const AGENTS = 5000;
const TUNNELS_EACH = 4;

const kicked: unknown[] = [];

/** Answers for the node; a node that is asked for figures does not answer in this suite. */
class FakeCalls implements ClusterCalls {
  readonly nodeId = NODE;
  async call<N extends CallName>(nodeId: NodeId, name: N, args: unknown): Promise<CallAnswer<N>> {
    if (name === 'inspect') throw new CulvertError('timeout', `node ${nodeId} did not answer`);
    if (name === 'kick') kicked.push(args);
    const answers = {
      sessions: { sessions: [] },
      kick: { sessions: 1 },
      drain: { draining: true, sessions: 0 },
      undrain: { draining: false, sessions: 0 },
    } as const;
    return answers[name as keyof typeof answers] as unknown as CallAnswer<N>;
  }
}

function token(claims: { role?: Role; account_id?: string; aud?: string; agent_id?: string }): Promise<string> {
  return new SignJWT({ aud: 'culvert-api', ...claims })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(KEY);
}

describe('the API', () => {
  let registry: Registry;
  let api: ApiServer;
  let admin: string;

  const ask = async (
    path: string,
    bearer: string | undefined,
    method = 'GET',
  ): Promise<{ status: number; body: unknown }> => {
    const headers = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` };
    const response = await fetch(`http://127.0.0.1:${api.port}/api/v1${path}`, { method, headers });
    return { status: response.status, body: await response.json() };
  };
  const read = async <T>(schema: z.ZodType<T>, path: string, bearer = admin): Promise<T> => {
    const { status, body } = await ask(path, bearer);
    assert.equal(status, 200, JSON.stringify(body));
    return schema.parse(body);
  };

  before(async () => {
    registry = createMemoryRegistry();
    await registry.join({ nodeId: NODE, relayAddr: '', agentAddr: '', version: '1', startedAt: 1 });
    for (let i = 0; i < AGENTS; i += 1) {
      const accountId = `account-${i % 50}`;
      const claim = {
        agentId: `agent-${String(i).padStart(4, '0')}`,
        accountId,
        instanceId: 'i',
        slot: 0,
        nodeId: NODE,
      };
      const session = await registry.openSession({ ...claim, maxSessionsPerAccount: 1e6 });
      for (let t = 0; t < TUNNELS_EACH; t += 1) {
        await registry.register(session, { name: `t-${i}-${t}`, localAddr: '', healthy: true }, 1e6);
      }
    }
    api = await startApi({
      ...{ host: '127.0.0.1', port: 0, nodeId: NODE, version: '1.2.3', registry, calls: new FakeCalls() },
      readiness: () => ({ ready: true, checks: {} }),
      log: createLogger({ level: 'silent', name: 'test' }),
      publicUrl: (name) => `http://${name}.localhost`,
      authenticators: [bearerTokens(createApiTokenVerifier({ secret: SECRET }))],
    });
    admin = await token({ role: 'admin' });
  });

  after(async () => {
    await api.close();
    await registry.close();
  });

  const ROUTES: readonly (readonly [method: string, path: string, least: Role, scope: 'account' | 'cluster'])[] = [
    ['GET', '/overview', 'viewer', 'account'],
    ['GET', '/nodes', 'viewer', 'cluster'],
    ['GET', '/nodes/one', 'viewer', 'cluster'],
    ['POST', '/nodes/one/drain', 'operator', 'cluster'],
    ['POST', '/nodes/one/undrain', 'operator', 'cluster'],
    ['GET', '/agents', 'viewer', 'account'],
    ['GET', '/agents/agent-0001', 'viewer', 'account'],
    ['DELETE', '/agents/agent-0001/sessions/agent-0001%2Fi%2F0', 'operator', 'account'],
    ['GET', '/tunnels', 'viewer', 'account'],
    ['GET', '/tunnels/t-1-0', 'viewer', 'account'],
  ];

  test('lets each role do what it may, on every route that there is', async () => {
    const document = (await ask('/openapi.json', undefined)).body as { paths: Record<string, object> };
    const count = Object.values(document.paths).reduce((sum, path) => sum + Object.keys(path).length, 0);
    assert.equal(ROUTES.length, count, 'a route is missing in the table of this test');
    const roles: readonly Role[] = ['viewer', 'operator', 'admin'];
    for (const [method, path, least, scope] of ROUTES) {
      for (const role of roles) {
        const mayRole = roles.indexOf(role) >= roles.indexOf(least);
        const all = await ask(path, await token({ role }), method);
        assert.equal(all.status, mayRole ? 200 : 403, `${role} ${method} ${path} ${JSON.stringify(all.body)}`);
        const own = await ask(path, await token({ role, account_id: 'account-1' }), method);
        const mayOwn = mayRole && scope === 'account';
        assert.equal(own.status, mayOwn ? 200 : 403, `${role} of account-1: ${method} ${path}`);
      }
    }
  });

  test('lets nobody in without a token for it', async () => {
    const agentToken = await token({ agent_id: 'agent-0001', account_id: 'account-1', aud: 'agents' });
    const both = await token({ agent_id: 'agent-0001', account_id: 'account-1', role: 'admin' });
    for (const [method, path] of ROUTES) {
      for (const bearer of [undefined, 'x', agentToken, both]) {
        const { status, body } = await ask(path, bearer, method);
        assert.equal(status, 401, `${method} ${path}`);
        assert.equal((body as { error: { code: string } }).error.code, 'invalid_token');
      }
    }
  });

  test('shows and ends nothing of another account', async () => {
    const bearer = await token({ role: 'operator', account_id: 'account-1' });
    const ids = { agents: 0, tunnels: 0 };
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: z.output<typeof AgentPage> = await read(
        AgentPage,
        `/agents?limit=70${cursor && `&cursor=${cursor}`}`,
        bearer,
      );
      for (const { accountId } of page.items) assert.equal(accountId, 'account-1');
      ids.agents += page.items.length;
      cursor = page.next;
    }
    assert.equal(ids.agents, AGENTS / 50);
    const tunnels = await read(TunnelPage, '/tunnels?limit=500', bearer);
    assert.equal(tunnels.total, (AGENTS / 50) * TUNNELS_EACH);
    for (const { accountId } of tunnels.items) assert.equal(accountId, 'account-1');
    for (const query of ['account=account-2', 'search=agent-0002', 'search=account-2&account=account-2']) {
      assert.equal((await read(AgentPage, `/agents?${query}`, bearer)).total, 0, query);
    }
    assert.equal((await read(TunnelPage, '/tunnels?agent=agent-0002', bearer)).total, 0);
    const overview = await read(Overview, '/overview', bearer);
    assert.deepEqual([overview.agents, overview.accounts, overview.cluster], [AGENTS / 50, 1, null]);
    kicked.length = 0;
    for (const [method, path] of [
      ['GET', '/agents/agent-0002'],
      ['GET', '/agents/agent-0002?account=account-2'],
      ['GET', '/tunnels/t-2-0'],
      ['DELETE', '/agents/agent-0002/sessions/agent-0002%2Fi%2F0'],
      ['DELETE', '/agents/agent-0002/sessions/agent-0002%2Fi%2F0?account=account-2'],
      ['DELETE', '/agents/agent-0001/sessions/agent-0002%2Fi%2F0'],
    ] as const) {
      const { status, body } = await ask(path, bearer, method);
      const absent = await ask(path.replaceAll('0002', '9999').replace('t-2-0', 't-none'), bearer, method);
      assert.deepEqual([status, absent.status], [404, 404], `${method} ${path}`);
      assert.equal((body as { error: { code: string } }).error.code, 'not_found');
    }
    assert.deepEqual(kicked, []);
  });

  test('pages through 5,000 agents and 20,000 tunnels, each once and in order, quickly', {
    timeout: 60_000,
  }, async () => {
    for (const [path, schema, total] of [
      ['/agents', AgentPage, AGENTS],
      ['/tunnels', TunnelPage, AGENTS * TUNNELS_EACH],
    ] as const) {
      for (const sort of ['accountId', `-${path === '/agents' ? 'agentId' : 'name'}`]) {
        const seen: string[] = [];
        let slowest = 0;
        for (let cursor: string | null = ''; cursor !== null; ) {
          const started = performance.now();
          const page: z.output<typeof AgentPage> | z.output<typeof TunnelPage> = await read<
            z.output<typeof AgentPage> | z.output<typeof TunnelPage>
          >(schema, `${path}?limit=500&sort=${sort}${cursor && `&cursor=${cursor}`}`);
          slowest = Math.max(slowest, performance.now() - started);
          assert.equal(page.total, total);
          for (const item of page.items) {
            const name = 'agentId' in item ? item.agentId : item.name;
            seen.push(sort === 'accountId' ? `${item.accountId} ${name}` : name);
          }
          cursor = page.next;
        }
        assert.equal(new Set(seen).size, total);
        const sorted = seen.toSorted((a, b) => (a < b ? -1 : 1));
        assert.deepEqual(seen, sort.startsWith('-') ? sorted.reverse() : sorted);
        assert.ok(slowest < 1500, `${path} ${sort}: a page took ${slowest} ms`);
      }
    }
  });

  test('refuses what its schemas do not know, with the parameter at fault', async () => {
    const { next } = await read(AgentPage, '/agents?limit=1');
    for (const [path, message] of [
      ['/agents?limit=501', /query limit/],
      ['/agents?limit=x', /query limit/],
      ['/agents?sort=color', /query sort/],
      ['/agents?colour=red', /query.*colour/],
      ['/agents?cursor=x', /query cursor/],
      [`/agents?sort=-agentId&cursor=${next}`, /query cursor/],
    ] as const) {
      const { status, body } = await ask(path, admin);
      assert.equal(status, 400, path);
      const { error } = body as { error: { code: string; message: string; request_id: string } };
      assert.equal(error.code, 'bad_request');
      assert.match(error.message, message);
      assert.ok(error.request_id.length > 10);
    }
    for (const path of ['/nothing', '/nodes/none', '/agents/none', '/tunnels/none']) {
      assert.equal((await ask(path, admin)).status, 404, path);
    }
  });

  test('names the nodes that do not answer and gives the rest', async () => {
    const nodes = await read(NodePage, '/nodes');
    assert.equal(nodes.items[0]?.figures, null);
    assert.deepEqual(nodes.partial, [{ nodeId: 'one', code: 'timeout', message: 'node one did not answer' }]);
    const overview = await read(Overview, '/overview');
    assert.deepEqual([overview.agents, overview.partial.length], [AGENTS, 1]);
  });

  test('streams events to whoever has a token, from a snapshot on', async () => {
    const url = `http://127.0.0.1:${api.port}/api/v1/events`;
    assert.equal((await fetch(url)).status, 401);
    const stop = new AbortController();
    const response = await fetch(url, { headers: { authorization: `Bearer ${admin}` }, signal: stop.signal });
    assert.equal(response.headers.get('content-type'), 'text/event-stream');
    let text = '';
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk, { stream: true });
      if (/event: snapshot\ndata: .*\n\n/.test(text)) break;
    }
    stop.abort();
    assert.match(text, /^event: hello\n/);
    assert.match(text, new RegExp(`"agents":${AGENTS},`));
  });

  test('describes every route in OpenAPI 3.1 and on a page that loads nothing', async () => {
    const { body } = await ask('/openapi.json', undefined);
    const document = body as {
      openapi: string;
      paths: Record<string, Record<string, { parameters: { name: string }[] }>>;
    };
    assert.equal(document.openapi, '3.1.0');
    assert.deepEqual(
      document.paths['/api/v1/agents']?.['get']?.parameters.map(({ name }) => name),
      ['limit', 'cursor', 'search', 'sort', 'account', 'node'],
    );
    const page = await fetch(`http://127.0.0.1:${api.port}/api/v1/docs`);
    const html = await page.text();
    assert.match(page.headers.get('content-security-policy') ?? '', /^default-src 'none'/);
    for (const path of Object.keys(document.paths)) assert.ok(html.includes(path.replace(/\{(\w+)\}/g, ':$1')), path);
    assert.doesNotMatch(html, /<script|src=|https?:/);
  });
});
