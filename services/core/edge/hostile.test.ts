import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answer, BASE_DOMAIN, get, noVisitors, startListener, visit } from './edge-testing.ts';

const HOST = `Host: api.${BASE_DOMAIN}\r\n`;
/** After each hostile request: must not be taken for a request of its own. */
const SMUGGLED = `GET /smuggled HTTP/1.1\r\n${HOST}\r\n`;

/** Raw requests that must be refused before any handler sees them, and the code that says so. */
const REFUSED: [string, string, number, string][] = [
  ['two Host fields', `GET / HTTP/1.1\r\n${HOST}Host: evil.example\r\n\r\n`, 400, 'bad_request'],
  ['the same Host twice', `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`, 400, 'bad_request'],
  ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400, 'bad_request'],
  ['an empty Host', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 400, 'bad_request'],
  ['a Host with a path', 'GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n', 400, 'bad_request'],
  ['a Host with user information', 'GET / HTTP/1.1\r\nHost: u@a.example\r\n\r\n', 400, 'bad_request'],
  ['a Host list', 'GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n', 400, 'bad_request'],
  ['a bad Host in HTTP/1.0', 'GET / HTTP/1.0\r\nHost: a b\r\n\r\n', 400, 'bad_request'],
  [
    'Content-Length and Transfer-Encoding',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  [
    'Transfer-Encoding and Content-Length',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  [
    'two Content-Lengths',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc`,
    400,
    'bad_request',
  ],
  [
    'the same Content-Length twice',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`,
    400,
    'bad_request',
  ],
  ['a Content-Length list', `POST / HTTP/1.1\r\n${HOST}Content-Length: 3, 3\r\n\r\nabc`, 400, 'bad_request'],
  ['a signed Content-Length', `POST / HTTP/1.1\r\n${HOST}Content-Length: +3\r\n\r\nabc`, 400, 'bad_request'],
  ['an empty Content-Length', `POST / HTTP/1.1\r\n${HOST}Content-Length:\r\n\r\n`, 400, 'bad_request'],
  [
    'a Content-Length above 2^53',
    `POST / HTTP/1.1\r\n${HOST}Content-Length: 9999999999999999\r\n\r\n`,
    400,
    'bad_request',
  ],
  [
    'Transfer-Encoding: gzip, chunked',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  ['Transfer-Encoding: identity', `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: identity\r\n\r\n`, 400, 'bad_request'],
  [
    'Transfer-Encoding: xchunked',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  [
    'Transfer-Encoding twice',
    `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  [
    'Transfer-Encoding in HTTP/1.0',
    `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    400,
    'bad_request',
  ],
  ['a folded field', `GET / HTTP/1.1\r\n${HOST}X-A: b\r\n c\r\n\r\n`, 400, 'bad_request'],
  ['NUL in a field', `GET / HTTP/1.1\r\n${HOST}X-A: b\0c\r\n\r\n`, 400, 'bad_request'],
  ['a control character in a field', `GET / HTTP/1.1\r\n${HOST}X-A: b\x01c\r\n\r\n`, 400, 'bad_request'],
  ['a bare CR in a field', `GET / HTTP/1.1\r\n${HOST}X-A: b\rc\r\n\r\n`, 400, 'bad_request'],
  ['bare LF line ends', `GET / HTTP/1.1\n${HOST.replace('\r', '')}\n`, 400, 'bad_request'],
  ['a space before the colon', `GET / HTTP/1.1\r\n${HOST}Content-Length : 3\r\n\r\nabc`, 400, 'bad_request'],
  ['a space before the first field', `GET / HTTP/1.1\r\n ${HOST}\r\n`, 400, 'bad_request'],
  ['a field without a name', `GET / HTTP/1.1\r\n${HOST}: x\r\n\r\n`, 400, 'bad_request'],
  ['a fragment in the target', `GET /a#b HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a space in the target', `GET /a b HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a relative target', `GET a HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['the target * with GET', `GET * HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a target with user information', `GET http://u@a.example/ HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a target with a fragment', `GET http://a.example/#f HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a target of another scheme', `GET ftp://a.example/ HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['a target without a host', `GET http:///x HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['HTTP/0.9', 'GET /\r\n\r\n', 400, 'bad_request'],
  ['HTTP/2.0 in a request line', `GET / HTTP/2.0\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['HTTP/1.2', `GET / HTTP/1.2\r\n${HOST}\r\n`, 400, 'bad_request'],
  ['TLS on the plain port', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, 'bad_request'],
  ['CONNECT', `CONNECT a.example:443 HTTP/1.1\r\n${HOST}\r\n`, 405, 'method_not_allowed'],
  ['fields above the limit', `GET / HTTP/1.1\r\n${HOST}X-A: ${'a'.repeat(200_000)}\r\n\r\n`, 431, 'headers_too_large'],
  [
    'an upgrade with two Host fields',
    `GET / HTTP/1.1\r\n${HOST}${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    400,
    'bad_request',
  ],
];

describe('hostile requests', () => {
  for (const [name, text, status, code] of REFUSED) {
    test(`${name}: ${status} ${code}, the end of the connection, and no handler`, async (t) => {
      const seen: string[] = [];
      const listener = await startListener(t, (exchange) => {
        seen.push(exchange.target);
        answer(exchange, 'handled');
      });
      const visitor = visit(t, listener, text + SMUGGLED);
      const received = await visitor.untilEnd();
      assert.deepEqual(seen, []);
      assert.match(received, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(received, new RegExp(`X-Culvert-Error: ${code}\r\n`));
      assert.match(received, /X-Request-Id: \S+\r\n/);
      assert.match(received, /Connection: close\r\n/);
      assert.equal(received.split('HTTP/1.1 ').length, 2, 'one reply only');
    });
  }

  test('a malformed request behind a good one does not disturb the answer to the good one', async (t) => {
    const listener = await startListener(t, (exchange) => setTimeout(() => answer(exchange, 'good'), 20));
    const received = await visit(t, listener, `${get()}GARBAGE\r\n\r\n`).untilEnd();
    assert.match(received, /^HTTP\/1\.1 200 OK\r\n[\s\S]*\r\n\r\ngood$/);
  });

  test('a malformed request behind an answer whose head is out ends the connection after it', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', [], Buffer.from('a'), false);
      setTimeout(() => exchange.end(), 20);
    });
    const received = await visit(t, listener, `${get()}GARBAGE\r\n\r\n`).untilEnd();
    assert.match(received, /a\r\n0\r\n\r\n$/);
  });

  test('a malformed body that comes with its head is answered 400, and nobody else sees the request', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'));
    const visitor = visit(t, listener, `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\nZZ\r\n`);
    assert.match(await visitor.untilEnd(), /^HTTP\/1\.1 400 [\s\S]*bad_request/);
  });

  test('a body that turns out malformed later aborts its request and is answered 400', async (t) => {
    const handled = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<void>();
    const listener = await startListener(t, (exchange) => {
      exchange.start({ onData() {}, onEnd() {}, onDrain() {}, onAbort: aborted.resolve });
      handled.resolve();
    });
    const visitor = visit(t, listener, `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n`);
    await handled.promise;
    visitor.socket.write('ZZ\r\n');
    await aborted.promise;
    assert.match(await visitor.untilEnd(), /^HTTP\/1\.1 400 [\s\S]*bad_request/);
  });

  test('a refused visitor that goes on sending gets its reply, and no reset', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'));
    const visitor = visit(t, listener, 'GARBAGE\r\n\r\n');
    visitor.socket.end(Buffer.alloc(8 * 1024 * 1024));
    await visitor.closed;
    assert.match(visitor.received, /^HTTP\/1\.1 400 /);
    assert.equal(visitor.error, undefined);
  });

  test('an HTTP/2 preface behind an HTTP/1 request ends the connection', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, 'first'));
    const received = await visit(t, listener, `${get()}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`).untilEnd();
    assert.equal(received.split('HTTP/1.1 200').length, 2);
  });

  test('a head that never ends is answered 408', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'), { headersTimeout: 150 });
    const received = await visit(t, listener, 'GET / HTTP/1.1\r\nHost: a').untilEnd();
    assert.match(received, /^HTTP\/1\.1 408 [\s\S]*X-Culvert-Error: bad_request/);
  });

  test('a connection that says nothing, or half a preface, is closed', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'), { headersTimeout: 150 });
    for (const text of ['', 'PR']) assert.equal(await visit(t, listener, text).untilEnd(), '');
  });

  test('a visitor that hangs up while its protocol is unknown leaves nothing behind', async (t) => {
    const listener = await startListener(t, () => assert.fail('handled'));
    const visitor = visit(t, listener, 'PR');
    visitor.socket.end();
    await visitor.closed;
    await noVisitors(listener);
  });
});
