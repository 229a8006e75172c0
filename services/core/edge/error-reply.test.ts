import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { field } from './edge-testing.ts';
import { preferredFormat, renderError, renderRawError } from './error-reply.ts';

describe('preferredFormat', () => {
  const cases: [string | undefined, string][] = [
    [undefined, 'text'],
    ['*/*', 'text'],
    ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'html'],
    ['application/json', 'json'],
    ['application/json, text/plain, */*', 'json'],
    ['text/html;q=0.5, application/json;q=0.9', 'json'],
    ['text/html, application/json;q=0.9', 'html'],
    ['application/problem+json', 'json'],
    ['application/json;q=0, text/html', 'html'],
    ['application/json;q=0', 'text'],
    ['TEXT/HTML', 'html'],
    [`text/html,${'x'.repeat(2_000)}`, 'text'],
    [';;,,q=', 'text'],
  ];
  for (const [accept, format] of cases) {
    test(`gives ${format} for ${String(accept).slice(0, 70)}`, () => assert.equal(preferredFormat(accept), format));
  }
});

describe('renderError', () => {
  test('carries code and request id in every format, in body and headers', () => {
    for (const accept of ['application/json', 'text/html', '*/*']) {
      const { status, headers, body } = renderError('tunnel_not_found', 'req-1', accept);
      assert.equal(status, 404);
      assert.match(body.toString(), /tunnel_not_found/);
      assert.match(body.toString(), /req-1/);
      assert.deepEqual(field(headers, 'X-Culvert-Error'), ['tunnel_not_found']);
      assert.deepEqual(field(headers, 'X-Request-Id'), ['req-1']);
      assert.deepEqual(field(headers, 'Cache-Control'), ['no-store']);
      assert.deepEqual(field(headers, 'Content-Length'), [String(body.length)]);
      assert.deepEqual(field(headers, 'Retry-After'), []);
    }
  });

  test('gives JSON of the documented shape', () => {
    const { body } = renderError('timeout', 'id', 'application/json', 'the service took 30 s');
    const expected = { error: { code: 'timeout', message: 'The service took 30 s.', request_id: 'id' } };
    assert.deepEqual(JSON.parse(body.toString()), expected);
  });

  test('escapes what it shows in HTML and allows no outside parts', () => {
    const { headers, body } = renderError('bad_request', `"><script>`, 'text/html', `<img src=x onerror='1'>&`);
    assert.doesNotMatch(body.toString(), /<script|<img|onerror='/);
    assert.doesNotMatch(body.toString(), /https?:|@import|url\(/);
    assert.match(field(headers, 'Content-Security-Policy')[0] ?? '', /default-src 'none'/);
  });

  test('says when to come back for 429 and 503', () => {
    for (const code of ['rate_limit_exceeded', 'quota_exceeded', 'node_draining', 'overloaded'] as const) {
      assert.match(field(renderError(code, 'id', undefined).headers, 'Retry-After')[0] ?? '', /^[1-9]\d*$/);
    }
  });

  test('writes a whole HTTP/1.1 reply that ends the connection', () => {
    const [head = '', body] = renderRawError('bad_request', 'id', 408).toString('latin1').split('\r\n\r\n');
    assert.match(head, /^HTTP\/1\.1 408 Request Timeout\r\nConnection: close\r\n/);
    assert.match(head, new RegExp(`Content-Length: ${body?.length}\r\n`));
  });
});
