import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from 'node:http2';
import { connect as connectTcp } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { WebSocket, WebSocketServer } from 'ws';
import { until } from '../../../shared/testkit/eventually.ts';
import { fieldValues, visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, listening, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { ensureServerCertificate } from '../../../shared/tls/certificates.ts';
import { type AgentHandle, connect } from '../../agent/index.ts';
import { agentOptions, TestCluster } from './cluster-kit.ts';
import { TestEdge } from './edge-kit.ts';
import { stateDir } from './tunnel.ts';

/** Everything that a visitor may say, through HAProxy, a node and an agent that came through HAProxy as well. */
describe('through HAProxy', { timeout: 120_000 }, () => {
  let redis: RedisServer;
  let edge: TestEdge;
  let cluster: TestCluster;
  let service: LocalService<unknown>;
  let grpc: LocalService<unknown>;
  let agent: AgentHandle;
  let secure: ClientHttp2Session;

  before(async () => {
    redis = await startRedis();
    const { certFile } = await ensureServerCertificate(join(stateDir, 'edge'), { hosts: ['app.localhost'] });
    edge = await TestEdge.start(redis.url, { CULVERT_CERTIFICATES: certFile, CULVERT_IDLE_TIMEOUT: '2s' });
    cluster = await TestCluster.start({
      nodes: 2,
      redis,
      address: { kind: 'single', url: redis.url },
      flags: (name) => ({ 'trusted-proxies': '127.0.0.1', 'agent-server-name': `${name}.agents.example` }),
    });
    await edge.startSync();
    await until('HAProxy has both nodes up', async () => (await edge.up()) === 2, 15_000);
    const app = await startService();
    const server = createHttp2Server();
    server.on('stream', (stream: ServerHttp2Stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
      // As a call that streams both ways: each message is answered before the next one comes.
      stream.on('data', (chunk: Buffer) => stream.write(chunk));
      stream.on('end', () => stream.end());
    });
    grpc = await listening(server);
    service = app;
    agent = connect({
      ...(await agentOptions(edge.haproxy.agentsPort, 'app', app.url, 'account')),
      // On one node alone, so that a request for the other one is seen to be relayed.
      connections: 1,
      tunnels: [
        { name: 'app', url: app.url },
        { name: 'grpc', url: grpc.url.replace('http:', 'h2c:') },
      ],
    });
    await agent.ready;
    await until('HAProxy knows the nodes of both', async () => (await edge.map('owners.map')).size === 2, 15_000);
    secure = connectHttp2(`https://127.0.0.1:${edge.haproxy.httpsPort}`, { rejectUnauthorized: false });
    await once(secure, 'connect');
  });

  after(async () => {
    secure?.destroy();
    await agent?.close(0);
    await cluster?.close();
    await edge?.close();
    await Promise.all([service?.close(), grpc?.close(), redis?.close()]);
  });

  test('HTTP/1.1 brings answers, interim answers and trailers', async () => {
    const hello = await visit(edge.url('app', '/hello'));
    assert.deepEqual([hello.status, hello.text], [200, 'GET /hello 0']);
    const { status, interim, rawTrailers } = await visit(edge.url('app', '/trailers'), { headers: { te: 'trailers' } });
    assert.deepEqual([status, interim], [200, [103]]);
    assert.deepEqual(fieldValues(rawTrailers, 'x-checksum'), ['abc']);
  });

  test('a host in another case, with a port and a dot at its end is the same host', async () => {
    const relayed = async (): Promise<number> => {
      const metrics = await Promise.all(cluster.nodes.map((node) => node.metrics()));
      return metrics.reduce((sum, each) => sum + (each.get('tunnel_relayed_requests_total') ?? 0), 0);
    };
    const before = await relayed();
    for (const host of ['APP.LocalHost', 'app.localhost:8080', 'app.localhost.', 'app.localhost.:80']) {
      for (let i = 0; i < 8; i += 1) {
        const { status } = await visit(edge.url('app', '/hello'), { headers: ['Host', host] });
        assert.equal(status, 200, host);
      }
      assert.equal(await relayed(), before, `${host} is not known as app.localhost`);
    }
  });

  test('an upload that waits for 100 Continue, and a long one, arrive whole', async () => {
    const body = Buffer.alloc(20 * 1024 * 1024, 'x');
    assert.equal((await visit(edge.url('app', '/up'), { method: 'POST', body })).text, `POST /up ${body.length}`);
    const sent = request({
      host: '127.0.0.1',
      port: edge.haproxy.httpPort,
      method: 'POST',
      path: '/up',
      headers: { host: 'app.localhost', expect: '100-continue', 'content-length': 5 },
    });
    sent.flushHeaders();
    await once(sent, 'continue');
    sent.end('hello');
    const [response] = await once(sent, 'response');
    response.resume();
    assert.equal(response.statusCode, 200);
    await once(response, 'end');
  });

  test('HTTP/2 over TLS is agreed on by ALPN', async () => {
    assert.equal(secure.alpnProtocol, 'h2');
    const stream = secure.request({ ':path': '/who', ':authority': 'app.localhost' });
    let text = '';
    stream.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
    });
    await once(stream, 'close');
    const seen = JSON.parse(text) as Record<string, string>;
    assert.equal(seen['x-forwarded-proto'], 'https');
    assert.equal(seen['host'], 'app.localhost');
  });

  for (const transport of ['TLS', 'plain text'] as const) {
    test(`gRPC streams both ways and ends with its status, over ${transport}`, async () => {
      const session = transport === 'TLS' ? secure : connectHttp2(`http://127.0.0.1:${edge.haproxy.httpPort}`);
      const call = session.request({
        ':method': 'POST',
        ':path': '/greeter.Greeter/Chat',
        ':authority': 'grpc.localhost',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const trailers = once(call, 'trailers');
      for (const message of ['one', 'two', 'three']) {
        call.write(message);
        const [piece] = await once(call, 'data');
        assert.equal(String(piece), message);
      }
      call.end();
      const [fields] = await trailers;
      assert.equal(fields['grpc-status'], '0');
      if (session !== secure) session.destroy();
    });
  }

  test('a WebSocket stays open for longer than requests may stand still', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${edge.haproxy.httpPort}/echo`, {
      headers: { host: 'app.localhost' },
    });
    await once(socket, 'open');
    for (const message of ['first', 'second']) {
      await wait(message === 'first' ? 0 : 3000);
      socket.send(message);
      const [data] = await once(socket, 'message');
      assert.equal(String(data), message);
    }
    socket.close();
    await once(socket, 'close');
  });

  test('events of a stream come as they are sent, with long silence between', async () => {
    const came: number[] = [];
    const { text, complete } = await visit(edge.url('app', '/events'), {
      headers: { accept: 'text/event-stream' },
      onData: () => came.push(performance.now()),
    });
    assert.equal(complete, true, text);
    assert.equal(came.length, 2);
    assert.ok((came[1] ?? 0) - (came[0] ?? 0) > 2500, 'both came together');
  });

  test('what a visitor says of himself is not believed', async () => {
    const forged = [
      ['Host', 'app.localhost'],
      ['X-Forwarded-For', '203.0.113.9'],
      ['X-Forwarded-Proto', 'https'],
      ['X-Forwarded-Host', 'bank.example'],
      ['X-Forwarded-Port', '443'],
      ['X-Forwarded-User', 'root'],
      ['X-Real-IP', '203.0.113.9'],
      ['Forwarded', 'for=203.0.113.9'],
      ['X-Request-Id', 'forged'],
      ['Connection', 'X-Forwarded-For, X-Forwarded-Proto, keep-alive'],
    ].flat();
    const { text, status } = await visit(edge.url('app', '/who'), { headers: forged });
    assert.equal(status, 200, text);
    assert.doesNotMatch(text, /203\.0\.113\.9|bank\.example|forged|root/);
    const seen = JSON.parse(text) as Record<string, string>;
    assert.match(seen['x-forwarded-for'] ?? '', /^127\.0\.0\.1, 127\.0\.0\.1$/);
    assert.equal(seen['x-forwarded-proto'], 'http');
    assert.match(seen['forwarded'] ?? '', /^for=127\.0\.0\.1;proto=http, /);
    assert.equal(seen['x-forwarded-port'], undefined);
    assert.match(
      seen['x-request-id'] ?? '',
      /^[0-9a-f]{8}-[0-9a-f-]{27}$/,
      'the id is not the one in the log of HAProxy',
    );
  });

  test('an agent that asks for a node by its server name comes to that node, whatever the case', async () => {
    const servers = await edge.map('nodes.map');
    for (const node of cluster.nodes) {
      const server = servers.get(`${node.name}.agents.example`);
      const connections = async (): Promise<number> => {
        const state = await edge.haproxy.command('show servers state agent_cores');
        const port = state
          .split('\n')
          .find((line) => line.split(' ')[3] === server)
          ?.split(' ')[18];
        assert.equal(Number(port), node.ownAgentPort);
        const statistics = await edge.haproxy.command('show stat');
        const row = statistics.split('\n').find((line) => line.startsWith(`agent_cores,${server},`));
        return Number(row?.split(',')[7]);
      };
      const before = await connections();
      for (let i = 0; i < 5; i += 1) {
        const socket = connectTls({
          port: edge.haproxy.agentsPort,
          host: '127.0.0.1',
          servername: `${node.name.toUpperCase()}.Agents.Example`,
          rejectUnauthorized: false,
        });
        await once(socket, 'secureConnect');
        socket.destroy();
      }
      assert.equal((await connections()) - before, 5);
    }
  });

  test('what is not TLS is turned away from the port of agents', async () => {
    const socket = connectTcp(edge.haproxy.agentsPort, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n');
    const read = once(socket, 'data').then(() => 'an answer');
    const closed = once(
      socket.on('error', () => {}),
      'close',
    ).then(() => 'nothing');
    assert.equal(await Promise.race([read, closed]), 'nothing');
  });

  test('operators have metrics and a health check', async () => {
    const at = `http://127.0.0.1:${edge.haproxy.operatorsPort}`;
    assert.match(await (await fetch(`${at}/metrics`)).text(), /^haproxy_backend_active_servers\{proxy="cores"\} 2$/m);
    assert.equal((await fetch(`${at}/health`)).status, 200);
    const metrics = await edge.metrics();
    const named = `{haproxy="${edge.haproxy.adminSocket}"}`;
    assert.equal(metrics.get(`edge_sync_haproxy_in_step${named}`), 1);
    assert.equal(metrics.get(`edge_sync_owner_entries${named}`), 2);
    assert.equal(metrics.get(`edge_sync_registry_up`), 1);
  });
});

async function startService(): Promise<LocalService<unknown>> {
  const service = await startHttpService((incoming, response) => {
    const { method, url = '' } = incoming;
    if (url === '/who') response.end(JSON.stringify(incoming.headers));
    else if (url === '/trailers') {
      response.writeEarlyHints({ link: '</style.css>; rel=preload' });
      response.writeHead(200, { trailer: 'X-Checksum' });
      response.write('body');
      response.addTrailers({ 'X-Checksum': 'abc' });
      response.end();
    } else if (url === '/events') {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      setTimeout(() => response.end('data: 2\n\n'), 3000);
    } else {
      let size = 0;
      incoming.on('data', (chunk: Buffer) => {
        size += chunk.length;
      });
      incoming.on('end', () => response.end(`${method} ${url} ${size}`));
    }
  });
  const sockets = new WebSocketServer({ server: service.server });
  sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
  return service;
}
