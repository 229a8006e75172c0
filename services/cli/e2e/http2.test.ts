import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
} from 'node:http2';
import { after, before, describe, test } from 'node:test';
import { type LocalService, listening, startHttpService } from '../../../shared/testkit/local-service.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

interface Answer {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly trailers: IncomingHttpHeaders | undefined;
}

/** What comes back on one stream; rejects when the stream is reset. */
async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  const chunks: Buffer[] = [];
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders | undefined;
  stream.on('response', (fields) => {
    headers = fields;
  });
  stream.on('trailers', (fields) => {
    trailers = fields;
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise<void>((resolve, reject) => {
    stream.on('error', reject);
    stream.on('close', () => (stream.rstCode === 0 ? resolve() : reject(new Error(`reset with ${stream.rstCode}`))));
  });
  return { headers, body: Buffer.concat(chunks), trailers };
}

/** A message as gRPC frames it: a flag for compression and the length (grpc.io, "gRPC over HTTP2"). */
function grpcMessage(payload: Buffer): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(payload.length, 1);
  return Buffer.concat([prefix, payload]);
}

function grpcMessages(body: Buffer): string[] {
  const messages: string[] = [];
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32BE(at + 1);
    messages.push(body.toString('utf8', at + 5, at + 5 + length));
    at += 5 + length;
  }
  return messages;
}

describe('gRPC to a local service that speaks HTTP/2 only', () => {
  let service: LocalService<Http2Server>;
  let tunnel: Tunnel;
  let session: ClientHttp2Session;

  before(async () => {
    const server = createServer();
    server.on('stream', serveGrpc);
    service = await listening(server);
    tunnel = await startTunnel({ services: { grpc: service.url.replace('http:', 'h2c:') } });
    session = connect(`http://127.0.0.1:${tunnel.publicPort}`);
  });
  after(async () => {
    session.destroy();
    await tunnel.close();
    await service.close();
  });

  function call(method: string, fields: OutgoingHttpHeaders = {}): ClientHttp2Stream {
    return session.request({
      ':method': 'POST',
      ':path': `/greeter.Greeter/${method}`,
      ':authority': 'grpc.localhost',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...fields,
    });
  }

  test('a unary call brings one message and the status in trailers', async () => {
    const stream = call('Hello');
    stream.end(grpcMessage(Buffer.from('Ada')));
    const { headers, body, trailers } = await answerOf(stream);
    assert.deepEqual([headers[':status'], headers['content-type']], [200, 'application/grpc']);
    assert.deepEqual(grpcMessages(body), ['Hello Ada']);
    assert.deepEqual([trailers?.['grpc-status'], trailers?.['x-te']], ['0', 'trailers']);
  });

  test('a refused call brings its status, in trailers that are all there is', async () => {
    const stream = call('Nothing');
    stream.end(grpcMessage(Buffer.from('x')));
    const { headers, body, trailers } = await answerOf(stream);
    assert.deepEqual([headers['grpc-status'] ?? trailers?.['grpc-status'], body.length], ['12', 0]);
  });

  test('a server stream brings its messages one by one and then the status', async () => {
    const stream = call('Count');
    stream.end(grpcMessage(Buffer.from('100')));
    const { body, trailers } = await answerOf(stream);
    assert.deepEqual(
      grpcMessages(body),
      Array.from({ length: 100 }, (_, i) => String(i)),
    );
    assert.equal(trailers?.['grpc-status'], '0');
  });

  test('in a stream both ways each message is answered before the next is sent', async () => {
    const stream = call('Chat');
    const answer = answerOf(stream);
    for (const word of ['one', 'two', 'three']) {
      const heard = new Promise<Buffer>((resolve) => stream.once('data', resolve));
      stream.write(grpcMessage(Buffer.from(word)));
      assert.deepEqual(grpcMessages(await heard), [word]);
    }
    stream.end();
    assert.equal((await answer).trailers?.['grpc-status'], '0');
  });

  test('a hundred calls at once on one connection get their own answers', async () => {
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => {
        const stream = call('Hello');
        stream.end(grpcMessage(Buffer.from(`number ${i}`)));
        return answerOf(stream);
      }),
    );
    assert.deepEqual(
      answers.map(({ body }) => grpcMessages(body)[0]),
      answers.map((_, i) => `Hello number ${i}`),
    );
  });
});

describe('an HTTP/2 visitor of a service that speaks HTTP/1.1', () => {
  let service: LocalService<unknown>;
  let tunnel: Tunnel;
  let session: ClientHttp2Session;

  before(async () => {
    service = await startHttpService((request, response) => {
      if (request.url === '/fields') {
        response.setHeader('connection', 'x-secret');
        response.setHeader('x-secret', 'for the next hop only');
        response.end(JSON.stringify({ version: request.httpVersion, fields: request.rawHeaders }));
      } else if (request.url === '/broken') {
        response.write('half of it');
        setImmediate(() => request.socket.destroy());
      } else {
        response.writeHead(200, { trailer: 'x-checksum' });
        request.pipe(response, { end: false });
        request.on('end', () => {
          response.addTrailers({ 'x-checksum': 'abc' });
          response.end();
        });
      }
    });
    tunnel = await startTunnel({ services: { app: service.url } });
    session = connect(`http://127.0.0.1:${tunnel.publicPort}`);
  });
  after(async () => {
    session.destroy();
    await tunnel.close();
    await service.close();
  });

  function ask(path: string, fields: OutgoingHttpHeaders = {}): ClientHttp2Stream {
    return session.request({ ':path': path, ':authority': 'app.localhost', ...fields });
  }

  test('sends a body and gets it back, with trailers', async () => {
    const body = randomBytes(3_000_000);
    const stream = ask('/echo', { ':method': 'POST', te: 'trailers' });
    stream.end(body);
    const answer = await answerOf(stream);
    assert.equal(answer.headers[':status'], 200);
    assert.ok(answer.body.equals(body));
    assert.equal(answer.trailers?.['x-checksum'], 'abc');
  });

  test('is an HTTP/1.1 visitor to the service, with the fields of one', async () => {
    const stream = ask('/fields', { cookie: ['a=1', 'b=2'] });
    const answer = await answerOf(stream);
    const { version, fields } = JSON.parse(answer.body.toString()) as { version: string; fields: string[] };
    assert.equal(version, '1.1');
    const value = (name: string): string | undefined =>
      fields.find((_, i) => i % 2 === 1 && fields[i - 1]?.toLowerCase() === name);
    assert.deepEqual([value('host'), value('cookie')], ['app.localhost', 'a=1; b=2']);
    assert.ok(!fields.some((field) => field.startsWith(':')));
    assert.equal(answer.headers['connection'], undefined);
    assert.equal(answer.headers['x-secret'], undefined);
  });

  test('gets thirty answers at once over one connection', async () => {
    const bodies = Array.from({ length: 30 }, () => randomBytes(100_000));
    const answers = await Promise.all(
      bodies.map((body) => {
        const stream = ask('/echo', { ':method': 'POST' });
        stream.end(body);
        return answerOf(stream);
      }),
    );
    assert.ok(answers.every((answer, i) => bodies[i]?.equals(answer.body)));
  });

  test('sees a body that breaks off as a stream that was reset', async () => {
    await assert.rejects(answerOf(ask('/broken')), /INTERNAL_ERROR|reset with 2/);
    assert.equal(session.destroyed, false);
  });
});

async function serveGrpc(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Promise<void> {
  const method = headers[':path']?.split('/')[2];
  stream.on('error', () => {});
  if (method === 'Nothing') {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '12' }, { endStream: true });
    return;
  }
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-te': headers['te'] ?? '' }));
  if (method === 'Chat') {
    stream.pipe(stream);
    return;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
  const [message = ''] = grpcMessages(Buffer.concat(chunks));
  if (method === 'Count') {
    for (let i = 0; i < Number(message); i += 1) {
      stream.write(grpcMessage(Buffer.from(String(i))));
      await new Promise((resolve) => setImmediate(resolve));
    }
    stream.end();
  } else {
    stream.end(grpcMessage(Buffer.from(`Hello ${message}`)));
  }
}
