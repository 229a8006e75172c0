import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { type Visit, visit } from '../../../shared/testkit/http-visitor.ts';
import {
  freePort,
  type LocalService,
  startHttpService,
  startTcpService,
} from '../../../shared/testkit/local-service.ts';
import { type AgentHandle, connect as connectAgent } from '../../agent/index.ts';
import { RawVisitor } from '../../core/edge/edge-testing.ts';
import { type CoreProcess, type CulvertProcess, startAgentProcess, startCoreProcess } from './processes.ts';
import { agentFor, signToken, startTunnel, type Tunnel } from './tunnel.ts';

const HALF = 'x'.repeat(50_000);

/** How a body tells its end → what the service sends before it stops half way. */
const FRAMINGS = {
  'Content-Length': `HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${HALF}`,
  chunks: `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc350\r\n${HALF}\r\n`,
} as const;

describe('a service that fails', () => {
  let broken: LocalService<Server>;
  let tunnel: Tunnel;
  /** What the broken service does with a connection once the request is there. */
  let answer: string | undefined;

  before(async () => {
    broken = await startTcpService((socket) => {
      socket.once('data', () => {
        if (answer !== undefined) socket.end(answer);
      });
      socket.on('end', () => socket.end());
    });
    tunnel = await startTunnel({
      services: { broken: broken.url, absent: `http://127.0.0.1:${await freePort()}` },
      agentOptions: { requestTimeout: 300 },
    });
  });
  after(async () => {
    await tunnel.close();
    await broken.close();
  });

  test('by not being there is answered 502 service_unreachable', async () => {
    assertError(await visit(tunnel.url('absent')), 502, 'service_unreachable');
  });

  test('by not answering is answered 504 timeout', async () => {
    answer = undefined;
    assertError(await visit(tunnel.url('broken')), 504, 'timeout');
    await until('the agent closes its connection', () => broken.sockets.size === 0);
  });

  test('by hanging up on a request that must not be repeated is answered 502 connection_closed', async () => {
    answer = '';
    assertError(await visit(tunnel.url('broken'), { method: 'POST', body: 'x' }), 502, 'connection_closed');
  });

  test('by talking something else than HTTP is answered 502 bad_response', async () => {
    answer = 'SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n';
    assertError(await visit(tunnel.url('broken')), 502, 'bad_response');
  });

  for (const [framing, text] of Object.entries(FRAMINGS)) {
    test(`half way through a body with ${framing} is no complete body to the visitor`, async () => {
      answer = text;
      const page = await visit(tunnel.url('broken'));
      assert.deepEqual([page.status, page.text === HALF, page.complete], [200, true, false]);
    });
  }

  test('half way through a body that ends with the connection is a reset, not an end, to an HTTP/1.0 visitor', async () => {
    answer = FRAMINGS.chunks;
    const visitor = new RawVisitor(connect(tunnel.publicPort, '127.0.0.1'));
    visitor.send('GET / HTTP/1.0\r\nHost: broken.localhost\r\n\r\n');
    await visitor.closed;
    assert.match(visitor.received, /^HTTP\/1\.1 200 OK\r\n/);
    assert.doesNotMatch(visitor.received, /transfer-encoding|content-length/i);
    assert.match(visitor.error?.message ?? 'an orderly end', /ECONNRESET/);
  });
});

describe('a host without a tunnel', () => {
  let tunnel: Tunnel;
  before(async () => {
    tunnel = await startTunnel({ services: { app: 'http://127.0.0.1:9' } });
  });
  after(() => tunnel.close());

  test('is answered 404 tunnel_not_found with a request id', async () => {
    const page = await visit(tunnel.url('nobody'));
    assertError(page, 404, 'tunnel_not_found');
    assert.match(page.headers['x-request-id']?.toString() ?? '', /^[\w-]{16,}$/);
  });

  test('is answered as JSON, HTML or plain text, as the visitor accepts', async () => {
    const accepting = (accept: string): Promise<Visit> => visit(tunnel.url('nobody'), { headers: { accept } });
    const json = await accepting('application/json');
    assert.equal(json.headers['content-type'], 'application/json; charset=utf-8');
    const { error } = JSON.parse(json.text) as { error: { code: string; request_id: string } };
    assert.deepEqual([error.code, error.request_id], ['tunnel_not_found', json.headers['x-request-id']]);

    const html = await accepting('text/html,application/xhtml+xml,*/*;q=0.8');
    assert.equal(html.headers['content-type'], 'text/html; charset=utf-8');
    assert.match(html.text, /<!doctype html>/i);
    assert.match(html.text, /tunnel_not_found/);

    const plain = await accepting('*/*');
    assert.equal(plain.headers['content-type'], 'text/plain; charset=utf-8');
    assert.match(plain.text, /^404 tunnel_not_found: /);
  });

  for (const host of ['localhost', 'a.b.localhost', 'app.localhost.evil.example', '127.0.0.1']) {
    test(`is what ${host} is, too`, async () => {
      const page = await visit(tunnel.url('app'), { headers: { host } });
      assertError(page, 404, 'tunnel_not_found');
    });
  }
});

describe('an agent that is killed', () => {
  let service: LocalService<unknown>;
  let core: CoreProcess;
  let agent: CulvertProcess;

  before(async () => {
    service = await startHttpService((request, response) => {
      if (request.url === '/length') response.writeHead(200, { 'content-length': 2 * HALF.length }).write(HALF);
      else if (request.url === '/chunks') response.writeHead(200).write(HALF);
      else if (request.url === '/fine') response.end('fine');
    });
    core = await startCoreProcess();
    agent = await startAgentProcess(core, { app: service.url });
  });
  after(async () => {
    await agent.kill();
    await core.process.kill();
    await service.close();
  });

  test('breaks what it was answering, fails what it was asked, and serves again when it is back', async () => {
    let begun = 0;
    const onData = (chunk: Buffer): void => {
      begun += chunk.length;
    };
    const begunVisits = ['/length', '/chunks'].map((path) => visit(core.url('app') + path, { onData }));
    const asked = new Set<unknown>();
    const unanswered = once(service.server as Server, 'request').then(([request]) => asked.add(request));
    const askedVisit = visit(`${core.url('app')}/never`, { method: 'POST', body: 'x' });
    await until('two answers have begun', () => begun === 2 * HALF.length);
    await unanswered;

    const killed = performance.now();
    await agent.kill('SIGKILL');
    for (const page of await Promise.all(begunVisits)) assert.deepEqual([page.status, page.complete], [200, false]);
    assertError(await askedVisit, 502, 'connection_closed');
    assert.ok(performance.now() - killed < 1000, 'visitors hear of it within a second');

    const away = await visit(`${core.url('app')}/fine`);
    assert.match(away.headers['x-culvert-error']?.toString() ?? '', /^(agent_offline|tunnel_not_found)$/);

    agent = await startAgentProcess(core, { app: service.url });
    assert.equal((await visit(`${core.url('app')}/fine`)).text, 'fine');
  });
});

describe('an agent that goes away while another serves the same tunnel', () => {
  let silent: LocalService<Server>;
  let service: LocalService<unknown>;
  let tunnel: Tunnel;
  let second: AgentHandle | undefined;
  let asked = 0;

  before(async () => {
    silent = await startTcpService((socket) => {
      socket.once('data', () => {
        asked += 1;
      });
      socket.on('end', () => socket.end());
    });
    service = await startHttpService((_request, response) => response.end('answered by the other'));
    tunnel = await startTunnel({ services: { app: silent.url } });
  });
  after(async () => {
    await second?.close(0);
    await tunnel.close();
    await silent.close();
    await service.close();
  });

  test('leaves what may be repeated to the other, and fails what may not', async () => {
    const repeatable = visit(tunnel.url('app'));
    const unrepeatable = visit(tunnel.url('app'), { method: 'POST', body: 'x' });
    await until('the service is asked', () => asked === 2);
    second = connectAgent(agentFor(tunnel.core, await signToken(), { app: service.url }));
    await second.ready;
    await tunnel.agent.close(0);
    assert.equal((await repeatable).text, 'answered by the other');
    assertError(await unrepeatable, 502, 'connection_closed');
  });
});

function assertError(page: Visit, status: number, code: string): void {
  assert.deepEqual([page.status, page.headers['x-culvert-error'], page.complete], [status, code, true]);
}
