import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { fieldValues, visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type Nginx, startNginx } from '../../../shared/testkit/nginx.ts';
import { RawVisitor } from '../../core/edge/edge-testing.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

const PAGE = randomBytes(100_000);
/** As many bytes of fields as both directions must carry. */
const MANY_FIELDS = Array.from({ length: 60 }, (_, i) => [`X-Field-${i}`, `${i}-`.padEnd(1000, 'x')] as const);

describe('HTTP through one node and one agent', () => {
  let nginx: Nginx;
  let service: LocalService<Server>;
  let tunnel: Tunnel;

  before(async () => {
    nginx = await startNginx('location = /nothing { return 204; }');
    writeFileSync(join(nginx.root, 'page.bin'), PAGE);
    service = await startHttpService(answer);
    service.server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
      if (request.url === '/refuse') {
        response.writeHead(417).end();
        return;
      }
      response.writeContinue();
      void answer(request, response);
    });
    tunnel = await startTunnel({ services: { files: nginx.url, app: service.url } });
  });
  after(async () => {
    await tunnel.close();
    await service.close();
    await nginx.close();
  });

  test('a file of nginx arrives byte for byte with its length', async () => {
    const page = await visit(`${tunnel.url('files')}/page.bin`);
    assert.equal(page.status, 200);
    assert.equal(page.headers['content-length'], String(PAGE.length));
    assert.ok(page.body.equals(PAGE));
  });

  test('a range of a file arrives as 206 with that range', async () => {
    const part = await visit(`${tunnel.url('files')}/page.bin`, { headers: { range: 'bytes=1000-1999' } });
    assert.equal(part.status, 206);
    assert.equal(part.headers['content-range'], `bytes 1000-1999/${PAGE.length}`);
    assert.ok(part.body.equals(PAGE.subarray(1000, 2000)));
  });

  test('HEAD tells the length of the file and brings no body, and the connection goes on', async () => {
    const raw = visitor(tunnel);
    raw.send(`HEAD /page.bin HTTP/1.1\r\nHost: files.localhost\r\n\r\n`);
    raw.send(`GET /nothing HTTP/1.1\r\nHost: files.localhost\r\nConnection: close\r\n\r\n`);
    const [head, next] = split(await raw.untilEnd());
    assert.match(head ?? '', /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(head ?? '', new RegExp(`\r\ncontent-length: ${PAGE.length}(\r\n|$)`, 'i'));
    assert.match(next ?? '', /^HTTP\/1\.1 204 /);
  });

  test('204 comes without a body and without a length', async () => {
    const none = await visit(`${tunnel.url('files')}/nothing`);
    assert.deepEqual([none.status, none.body.length, none.complete], [204, 0, true]);
    assert.equal(none.headers['content-length'], undefined);
    assert.equal(none.headers['transfer-encoding'], undefined);
  });

  test('a validator that still holds brings 304 without a body', async () => {
    const { etag } = (await visit(`${tunnel.url('files')}/page.bin`, { method: 'HEAD' })).headers;
    assert.ok(etag);
    const same = await visit(`${tunnel.url('files')}/page.bin`, { headers: { 'if-none-match': etag } });
    assert.deepEqual([same.status, same.body.length, same.headers.etag], [304, 0, etag]);
  });

  test('a body without a length is chunked both ways', async () => {
    const body = randomBytes(300_000);
    const echo = await visit(`${tunnel.url('app')}/echo`, {
      method: 'POST',
      headers: { 'transfer-encoding': 'chunked' },
      body,
    });
    assert.equal(echo.headers['x-request-framing'], 'chunked');
    assert.equal(echo.headers['transfer-encoding'], 'chunked');
    assert.ok(echo.body.equals(body));
  });

  test('a body with a length keeps it both ways', async () => {
    const body = randomBytes(300_000);
    const echo = await visit(`${tunnel.url('app')}/echo`, {
      method: 'PUT',
      headers: { 'content-length': body.length, 'x-echo-length': '1' },
      body,
    });
    assert.equal(echo.headers['x-request-framing'], `length ${body.length}`);
    assert.equal(echo.headers['content-length'], String(body.length));
    assert.ok(echo.body.equals(body));
  });

  test('curl, which waits for 100 Continue, sends its body and gets the answer', async () => {
    const body = randomBytes(2_000_000);
    const file = join(nginx.root, 'upload.bin');
    writeFileSync(file, body);
    const { stdout, stderr } = await promisify(execFile)('curl', [
      ...['--silent', '--show-error', '--verbose', '--max-time', '20', '--expect100-timeout', '15'],
      ...['--header', 'Expect: 100-continue', '--header', 'Host: app.localhost', '--upload-file', file],
      `http://127.0.0.1:${tunnel.publicPort}/hash`,
    ]);
    assert.match(stderr, /^< HTTP\/1\.1 100 Continue/m);
    assert.equal(stdout, sha256(body));
  });

  test('100 Continue comes from the service, before any of the body is sent', async () => {
    const raw = visitor(tunnel);
    raw.send('POST /hash HTTP/1.1\r\nHost: app.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n');
    assert.equal(await raw.until('\r\n\r\n'), 'HTTP/1.1 100 Continue\r\n\r\n');
    raw.send('hello');
    assert.match(await raw.until(sha256(Buffer.from('hello'))), /\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
  });

  test('a service that refuses before the body is heard without the body being sent', async () => {
    const raw = visitor(tunnel);
    raw.send('POST /refuse HTTP/1.1\r\nHost: app.localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n');
    assert.match(await raw.until('\r\n\r\n'), /^HTTP\/1\.1 417 /);
  });

  test('several Set-Cookie fields stay several, in order', async () => {
    const page = await visit(`${tunnel.url('app')}/cookies`);
    assert.deepEqual(fieldValues(page.rawHeaders, 'set-cookie'), ['a=1; Path=/', 'b=2, with comma', 'a=3']);
  });

  test('duplicate request fields reach the service in order and with their case', async () => {
    const headers = ['Host', 'app.localhost', 'X-One', '1', 'x-two', '2', 'X-One', '3'];
    const seen = JSON.parse((await visit(`${tunnel.url('app')}/fields`, { headers })).text) as string[];
    assert.deepEqual(
      seen.filter((_, i) => /^x-(one|two)$/i.test(seen[i - (i % 2)] ?? '')),
      ['X-One', '1', 'x-two', '2', 'X-One', '3'],
    );
  });

  test('60 KB of fields pass both ways', async () => {
    const page = await visit(`${tunnel.url('app')}/mirror`, { headers: Object.fromEntries(MANY_FIELDS) });
    assert.equal(page.status, 200);
    for (const [name, value] of MANY_FIELDS) assert.equal(page.headers[name.toLowerCase()], value);
  });

  test('trailers of a request reach the service', async () => {
    const page = await visit(`${tunnel.url('app')}/trailers`, {
      method: 'POST',
      headers: { 'transfer-encoding': 'chunked', trailer: 'X-Checksum' },
      body: 'some bytes',
      trailers: { 'X-Checksum': 'abc' },
    });
    assert.deepEqual(JSON.parse(page.text), ['X-Checksum', 'abc']);
  });

  test('trailers of a response reach the visitor', async () => {
    const page = await visit(`${tunnel.url('app')}/with-trailers`, { headers: { te: 'trailers' } });
    assert.equal(page.text, 'body first');
    assert.deepEqual(page.rawTrailers, ['X-Checksum', 'def', 'X-Checksum', 'ghi']);
  });

  test('a hundred requests in a pipeline are answered in their order', async () => {
    const raw = visitor(tunnel);
    const count = 100;
    let text = '';
    for (let i = 0; i < count; i += 1) {
      const last = i === count - 1 ? 'Connection: close\r\n' : '';
      text += `GET /number/${i} HTTP/1.1\r\nHost: app.localhost\r\n${last}\r\n`;
    }
    raw.send(text);
    const numbers = [...(await raw.untilEnd()).matchAll(/^number (\d+);/gm)].map(([, number]) => Number(number));
    assert.deepEqual(
      numbers,
      Array.from({ length: count }, (_, i) => i),
    );
  });

  test('the visitor sees who asked through forwarding fields that he cannot forge', async () => {
    const seen = JSON.parse(
      (
        await visit(`${tunnel.url('app')}/fields`, {
          headers: { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6' },
        })
      ).text,
    ) as string[];
    assert.deepEqual(fieldValues(seen, 'x-forwarded-for'), ['127.0.0.1']);
    assert.deepEqual(fieldValues(seen, 'x-forwarded-proto'), ['http']);
    assert.deepEqual(fieldValues(seen, 'host'), [new URL(tunnel.url('app')).host]);
    assert.ok(!seen.join('\n').includes('6.6.6.6'));
  });
});

const answer: RequestListener = async (request, response) => {
  const path = request.url ?? '';
  if (path === '/echo') {
    const length = request.headers['content-length'];
    response.setHeader('x-request-framing', length === undefined ? 'chunked' : `length ${length}`);
    if (request.headers['x-echo-length'] !== undefined) response.setHeader('content-length', length ?? '');
    request.pipe(response);
  } else if (path === '/hash') {
    const hash = createHash('sha256');
    for await (const chunk of request as AsyncIterable<Buffer>) hash.update(chunk);
    response.end(hash.digest('hex'));
  } else if (path === '/cookies') {
    response.writeHead(200, ['Set-Cookie', 'a=1; Path=/', 'Set-Cookie', 'b=2, with comma', 'Set-Cookie', 'a=3']).end();
  } else if (path === '/fields') {
    response.end(JSON.stringify(request.rawHeaders));
  } else if (path === '/mirror') {
    for (const [name, value] of Object.entries(request.headers)) {
      if (name.startsWith('x-field-') && value !== undefined) response.setHeader(name, value);
    }
    response.end();
  } else if (path === '/trailers') {
    await finished(request);
    response.end(JSON.stringify(request.rawTrailers));
  } else if (path === '/with-trailers') {
    response.writeHead(200, { trailer: 'X-Checksum' });
    response.write('body first');
    response.addTrailers([
      ['X-Checksum', 'def'],
      ['X-Checksum', 'ghi'],
    ]);
    response.end();
  } else {
    // Later requests are answered sooner, if nothing keeps them in order.
    setTimeout(() => response.end(`number ${path.slice(8)};\n`), Math.random() * 5);
  }
};

async function finished(request: IncomingMessage): Promise<void> {
  for await (const _ of request) void _;
}

function visitor(tunnel: Tunnel): RawVisitor {
  return new RawVisitor(connect(tunnel.publicPort, '127.0.0.1'));
}

/** Heads of answers that have no body. */
function split(text: string): string[] {
  return text.split('\r\n\r\n');
}

function sha256(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}
