import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Server as HttpServer, IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { connect, type Server, type Socket } from 'node:net';
import { setInterval } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import {
  type LocalService,
  listening,
  startHttpService,
  startTcpService,
} from '../../../shared/testkit/local-service.ts';
import { type RedisServer, startRedis } from '../../../shared/testkit/redis-server.ts';
import { type AgentHandle, connect as connectAgent } from '../../agent/index.ts';
import { RawVisitor } from '../../core/edge/edge-testing.ts';
import { agentOptions, TestCluster, type TestNode } from './cluster-kit.ts';

/** Two nodes and one agent that only one of them holds: what a visitor gets must not tell through which he came. */

/** Bytes of one answer piece that an endless download is made of. */
const PIECE = Buffer.alloc(64 * 1024, 'x');
/** Events of one stream, and milliseconds between them: longer than a way may take, so that none is carried by the next. */
export const EVENTS = 40;
const EVENT_INTERVAL = 20;

/** What the service saw of a request. */
export interface Served {
  readonly path: string;
  bytes: number;
  /** All of the body came. */
  complete: boolean;
  /** The answer is over, in order or not. */
  closed: boolean;
}

/** The answers of the raw service by path, byte for byte. */
export const RAW_ANSWERS: Readonly<Record<string, string>> = {
  '/head':
    'HTTP/1.1 299 Fine  Thanks\r\nX-Dup: a\r\nx-dUP: b\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2, c\r\nX-Dup: c\r\n' +
    'X-Latin: \xe9\xff\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello',
  '/early':
    'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n' +
    'HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nok',
  '/length': 'HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 100\r\n\r\n',
  '/nothing': 'HTTP/1.1 204 No Content\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nX-A: 1\r\n\r\n',
  '/same':
    'HTTP/1.1 304 Not Modified\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nETag: "x"\r\nContent-Length: 100\r\n\r\n',
  '/trailers':
    'HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n' +
    '5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n',
  '/old': 'HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\nuntil the end',
  '/wrong': 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
  '/cut': 'HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 100\r\n\r\nonly this',
  '/silent': '',
};

/** One end of the comparison: a node that visitors ask. */
export interface Door {
  readonly node: TestNode;
  /** A visitor of raw bytes. */
  raw(): RawVisitor;
  url(tunnel: string, path?: string): string;
}

export class ParityRig {
  readonly cluster: TestCluster;
  /** Holds the agent. */
  readonly owner: Door;
  readonly other: Door;
  readonly agent: AgentHandle;
  readonly services: Services;
  readonly #redis: RedisServer;

  private constructor(
    redis: RedisServer,
    cluster: TestCluster,
    services: Services,
    agent: AgentHandle,
    owner: TestNode,
    other: TestNode,
  ) {
    this.#redis = redis;
    this.cluster = cluster;
    this.services = services;
    this.agent = agent;
    this.owner = doorOf(owner);
    this.other = doorOf(other);
  }

  static async start(flags: Readonly<Record<string, string>> = {}): Promise<ParityRig> {
    const redis = await startRedis();
    const cluster = await TestCluster.start({ redis, address: { kind: 'single', url: redis.url }, nodes: 2, flags });
    const services = await Services.start();
    const agent = connectAgent(
      await agentOptions(cluster.balancer.agentPort, 'app', '', 'account-parity', {
        connections: 1,
        tunnels: services.tunnels(cluster.node(0).publicPort),
      }),
    );
    await agent.ready;
    const holder = agent.sessions[0]?.nodeId;
    const [owner, other] = cluster.nodes.toSorted((a) => (a.name === holder ? -1 : 1));
    assert.ok(owner !== undefined && owner.name === holder && other !== undefined);
    for (const node of [owner, other]) {
      const isServed = async (): Promise<boolean> => (await visit(node.url('app', '/hash'))).status === 200;
      await until(`${node.name} serves the tunnel`, () => isServed().catch(() => false), 20_000);
    }
    return new ParityRig(redis, cluster, services, agent, owner, other);
  }

  /**
   * Does the same through both nodes and compares what came of it.
   * @param observe what a visitor, and the service, see
   * @returns what both saw
   */
  async compare<T>(observe: (door: Door) => Promise<T>): Promise<T> {
    const direct = await observe(this.owner);
    const relayed = await observe(this.other);
    assert.deepEqual(relayed, direct);
    return direct;
  }

  async close(): Promise<void> {
    await this.agent.close(0);
    await this.services.close();
    await this.cluster.close();
    await this.#redis.close();
  }
}

function doorOf(node: TestNode): Door {
  return {
    node,
    raw: () => new RawVisitor(connect({ port: node.publicPort, host: '127.0.0.1', allowHalfOpen: true })),
    url: (tunnel, path) => node.url(tunnel, path),
  };
}

/** The local services behind the agent: one that node:http serves, one of raw bytes, one that speaks HTTP/2. */
export class Services {
  readonly #http: LocalService<HttpServer>;
  readonly #raw: LocalService<Server>;
  readonly #grpc: LocalService<Http2Server>;
  readonly sockets: WebSocketServer;
  /** Requests to the first one, oldest first. */
  readonly served: Served[];
  /** What the raw service was sent, connection by connection. */
  readonly received: string[];

  private constructor(
    http: LocalService<HttpServer>,
    raw: LocalService<Server>,
    grpc: LocalService<Http2Server>,
    served: Served[],
    received: string[],
  ) {
    this.#http = http;
    this.#raw = raw;
    this.#grpc = grpc;
    this.served = served;
    this.received = received;
    this.sockets = new WebSocketServer({ server: http.server, maxPayload: 4 * 1024 ** 2 });
    this.sockets.on('connection', (socket) => {
      socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    });
  }

  static async start(): Promise<Services> {
    const served: Served[] = [];
    const received: string[] = [];
    const http = await startHttpService((request, response) => void answer(served, request, response));
    const raw = await startTcpService((socket) => answerRaw(received, socket));
    const server = createServer();
    server.on('stream', serveGrpc);
    return new Services(http, raw, await listening(server), served, received);
  }

  /** @param loop port of the cluster's own visitors, behind the tunnel "loop" */
  tunnels(loop: number): { readonly name: string; readonly url: string }[] {
    return [
      { name: 'app', url: this.#http.url },
      { name: 'raw', url: this.#raw.url },
      { name: 'grpc', url: this.#grpc.url.replace('http:', 'h2c:') },
      { name: 'loop', url: `http://127.0.0.1:${loop}` },
      // Nobody listens on the discard port of a machine for tests.
      { name: 'refused', url: 'http://127.0.0.1:9' },
    ];
  }

  /** The newest request with this path. */
  last(path: string): Served | undefined {
    return this.served.findLast((request) => request.path === path);
  }

  async close(): Promise<void> {
    this.sockets.close();
    await Promise.all([this.#http.close(), this.#raw.close(), this.#grpc.close()]);
  }
}

async function answer(served: Served[], request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '').split('?')[0] ?? '';
  const seen: Served = { path, bytes: 0, complete: false, closed: false };
  served.push(seen);
  response.sendDate = false;
  response.on('close', () => {
    seen.closed = true;
  });
  const hash = createHash('sha256');
  request.on('error', () => {});
  if (path === '/echo') {
    request.pipe(response);
    return;
  }
  request.on('data', (chunk: Buffer) => {
    seen.bytes += chunk.length;
    hash.update(chunk);
  });
  request.on('end', () => {
    seen.complete = true;
  });
  if (path.startsWith('/endless')) {
    pour(response, Number.POSITIVE_INFINITY);
  } else if (path.startsWith('/pour/')) {
    pour(response, Number(path.slice(6)));
  } else if (path === '/events') {
    await trickle(response);
  } else if (path === '/fields') {
    response.end(JSON.stringify(request.rawHeaders));
  } else if (path.startsWith('/never')) {
    // Whoever asks goes away first.
  } else {
    await once(request, 'end').catch(() => {});
    response.setHeader('x-trailers', JSON.stringify(request.rawTrailers));
    response.end(hash.digest('hex'));
  }
}

/** Writes so many bytes as fast as they are taken. */
function pour(response: ServerResponse, bytes: number): void {
  let left = bytes;
  const more = (): void => {
    while (left > 0 && !response.destroyed) {
      const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
      left -= piece.length;
      if (!response.write(piece) && left > 0) return;
    }
    if (left <= 0) response.end();
  };
  response.on('drain', more);
  more();
}

async function trickle(response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  response.flushHeaders();
  let left = EVENTS;
  for await (const _ of setInterval(EVENT_INTERVAL)) {
    response.write(`data: ${performance.now()}\n\n`);
    left -= 1;
    if (left === 0) break;
  }
  response.end();
}

/** Answers each request by its path; one for an upgrade is answered with 101 and what comes then is sent back. */
function answerRaw(received: string[], socket: Socket): void {
  let text = '';
  const index = received.push('') - 1;
  let isUpgraded = false;
  socket.on('data', (chunk: Buffer) => {
    received[index] += chunk.toString('latin1');
    if (isUpgraded) {
      socket.write(chunk);
      return;
    }
    text += chunk.toString('latin1');
    for (let end = text.indexOf('\r\n\r\n'); end >= 0 && !isUpgraded; end = text.indexOf('\r\n\r\n')) {
      const head = text.slice(0, end);
      text = text.slice(end + 4);
      isUpgraded = reply(socket, head);
    }
    if (isUpgraded && text.length > 0) socket.write(text, 'latin1');
  });
  socket.on('end', () => socket.end(isUpgraded ? 'that was all' : ''));
}

function reply(socket: Socket, head: string): boolean {
  const path = head.split(' ')[1] ?? '';
  if (path === '/upgrade') {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\nI speak first;');
    return true;
  }
  const bytes = RAW_ANSWERS[path] ?? 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n';
  const isLast = path === '/old' || path === '/cut' || path === '/silent';
  if (isLast) socket.end(bytes, 'latin1');
  else socket.write(bytes, 'latin1');
  return false;
}

/** Echoes each message (unary or in a stream), ends with a status in trailers. */
function serveGrpc(stream: ServerHttp2Stream, headers: Record<string, unknown>): void {
  stream.on('error', () => {});
  const isRefused = headers[':path'] === '/greeter.Greeter/Nothing';
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': isRefused ? '12' : '0', 'grpc-message': 'm' }));
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  if (isRefused) stream.end();
  else stream.pipe(stream);
}
