import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { BASE_DOMAIN, field } from './edge-testing.ts';
import { HostTable } from './host.ts';
import { forwardHeaders, forwardTrailers } from './hygiene.ts';
import { responseHeaders } from './response-fields.ts';
import { createTrust, plainAddress } from './trust.ts';
import { forwardedUpgrade, readHttp1, readHttp2 } from './validate.ts';
import { VisitorPeer } from './visitor-connection.ts';

const HOST = `api.${BASE_DOMAIN}`;
const ADDED = ['x-forwarded-for', 'x-forwarded-proto', 'forwarded', 'x-request-id', 'x-forwarded-host'];

function peer(address: string, trusted: string[] = [], scheme: 'http' | 'https' = 'http'): VisitorPeer {
  return new VisitorPeer(address, scheme, {
    trust: createTrust(trusted),
    hosts: new HostTable(BASE_DOMAIN),
    closing: false,
  });
}

function forward(raw: string[], from = peer('203.0.113.5'), upgrade?: string): string[] {
  const request = readHttp1({ method: 'GET', url: '/', httpVersion: '1.1', rawHeaders: ['Host', HOST, ...raw] }, from);
  assert.equal(request.fields.fault, undefined);
  return forwardHeaders(request.fields, from, upgrade);
}

/** What is left of the visitor's fields, without Host and what the edge adds. */
function kept(raw: string[], from?: VisitorPeer): string[] {
  const headers = forward(raw, from);
  return headers.slice(2, headers.length - 2 * ADDED.length);
}

describe('request headers on their way to the service', () => {
  test('keep order, case and duplicates', () => {
    const raw = [
      'aCCept',
      '*/*',
      'X-a',
      '1',
      'x-A',
      '2',
      'Cookie',
      'a=b',
      'cookie',
      'c=d',
      'Trailer',
      'X-T',
      'Expect',
      '100-continue',
    ];
    assert.deepEqual(kept(raw), raw);
  });

  test('lose what belongs to one hop', () => {
    const names = [
      'Keep-Alive',
      'Proxy-Connection',
      'Proxy-Authorization',
      'TE',
      'Transfer-Encoding',
      'Upgrade',
      'HTTP2-Settings',
      'Connection',
    ];
    for (const name of names) {
      for (const written of [name, name.toLowerCase(), name.toUpperCase()]) {
        assert.deepEqual(kept([written, name === 'Transfer-Encoding' ? 'chunked' : 'x']), [], written);
      }
    }
  });

  test('keep TE: trailers, the only part of TE that a gRPC service needs', () => {
    assert.deepEqual(kept(['TE', 'gzip;q=0.5, trailers', 'Connection', 'TE']), ['TE', 'trailers']);
  });

  test('lose the fields that Connection names', () => {
    assert.deepEqual(kept(['Connection', 'close, X-Hop', 'X-Hop', '1', 'x-hop', '2', 'X-Stay', '3']), ['X-Stay', '3']);
  });

  test('cannot be stripped of end-to-end fields by naming them in Connection', () => {
    const raw = [
      'Connection',
      'Host, Cookie, Authorization, Content-Type, Content-Length, X-Forwarded-For, Forwarded',
      'Cookie',
      'a',
      'Authorization',
      'b',
      'Content-Type',
      'c',
      'Content-Length',
      '0',
    ];
    assert.deepEqual(kept(raw), raw.slice(2));
    assert.deepEqual(field(forward(raw), 'x-forwarded-for'), ['203.0.113.5']);
    assert.deepEqual(field(forward(raw), 'host'), [HOST]);
  });

  test('lose what a stranger claims about itself, also under names that CGI would merge', () => {
    const claims = [
      'X-Forwarded-For',
      'X-Forwarded-Proto',
      'X-Forwarded-Host',
      'X-Forwarded-Port',
      'X-Forwarded-User',
      'X-Forwarded-Prefix',
      'Forwarded',
      'X-Real-IP',
      'X-Request-Id',
    ];
    for (const name of claims) {
      for (const written of [name, name.toLowerCase(), name.replaceAll('-', '_'), name.replace('-', '_')]) {
        assert.deepEqual(kept([written, 'evil']), [], written);
      }
    }
    for (const alias of ['Transfer_Encoding', 'Content_Length']) assert.deepEqual(kept([alias, '5']), []);
  });

  test('say who the visitor is', () => {
    const headers = forward([], peer('2001:db8::1', [], 'https'));
    assert.deepEqual(field(headers, 'x-forwarded-for'), ['2001:db8::1']);
    assert.deepEqual(field(headers, 'x-forwarded-proto'), ['https']);
    assert.deepEqual(field(headers, 'x-forwarded-host'), [HOST]);
    assert.deepEqual(field(headers, 'forwarded'), [`for="[2001:db8::1]";proto=https;host=${HOST}`]);
    assert.match(field(headers, 'x-request-id')[0] ?? '', /^[0-9a-z]{24}$/);
  });

  test('quote a host with a port in Forwarded, and follow the host within a connection', () => {
    const from = peer('203.0.113.5');
    for (const host of [`a.${BASE_DOMAIN}:8080`, `b.${BASE_DOMAIN}`, `a.${BASE_DOMAIN}:8080`]) {
      const request = readHttp1({ method: 'GET', url: '/', httpVersion: '1.1', rawHeaders: ['Host', host] }, from);
      const quoted = host.includes(':') ? `"${host}"` : host;
      assert.deepEqual(field(forwardHeaders(request.fields, from, undefined), 'forwarded'), [
        `for=203.0.113.5;proto=http;host=${quoted}`,
      ]);
    }
  });

  test('extend what a trusted proxy says', () => {
    const from = peer('10.0.0.7', ['10.0.0.0/8']);
    const headers = forward(
      [
        'X-Forwarded-For',
        '6.6.6.6, 198.51.100.9',
        'X-Forwarded-Proto',
        'https',
        'X-Forwarded-Host',
        'shop.example',
        'Forwarded',
        'for=198.51.100.9',
        'X-Request-Id',
        'abc-1',
        'X-Real-IP',
        '198.51.100.9',
      ],
      from,
    );
    assert.deepEqual(field(headers, 'x-forwarded-for'), ['6.6.6.6, 198.51.100.9, 10.0.0.7']);
    assert.deepEqual(field(headers, 'x-forwarded-proto'), ['https']);
    assert.deepEqual(field(headers, 'x-forwarded-host'), ['shop.example']);
    assert.deepEqual(field(headers, 'forwarded'), [`for=198.51.100.9, for=10.0.0.7;proto=http;host=${HOST}`]);
    assert.deepEqual(field(headers, 'x-request-id'), ['abc-1']);
    assert.deepEqual(field(headers, 'x-real-ip'), ['198.51.100.9']);
    assert.deepEqual(field(forward(['x_forwarded_for', '6.6.6.6'], from), 'x_forwarded_for'), []);
  });

  test('replace a request id that is too long or not visible ASCII', () => {
    const from = peer('10.0.0.7', ['10.0.0.7']);
    for (const id of ['', 'a b', 'x'.repeat(129), 'é']) {
      assert.match(field(forward(['X-Request-Id', id], from), 'x-request-id')[0] ?? '', /^[0-9a-z]{24}$/);
    }
  });

  test('give every request an id of its own', () => {
    const ids = new Set(Array.from({ length: 1_000 }, () => field(forward([]), 'x-request-id')[0]));
    assert.equal(ids.size, 1_000);
  });

  test('hold exactly one of each forwarding field, whatever a stranger sends', () => {
    const name = fc.oneof(
      fc.constantFrom(
        'X-Forwarded-For',
        'x_forwarded_proto',
        'Forwarded',
        'connection',
        'X-Request-ID',
        'Keep-Alive',
        'te',
        'upgrade',
      ),
      fc
        .stringMatching(/^[A-Za-z_-]{1,20}$/)
        .filter((text) => !/^(host|transfer-encoding|content-length)$/i.test(text)),
    );
    const value = fc.stringMatching(/^[ -~]{0,30}$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 20 }), (list) => {
        const headers = forward(list.flat());
        assert.equal(headers.length % 2, 0);
        for (const added of ADDED) assert.equal(field(headers, added).length, 1, added);
        const names = headers.filter((_, i) => i % 2 === 0).map((text) => text.toLowerCase());
        for (const hop of ['connection', 'keep-alive', 'upgrade', 'x_forwarded_proto']) assert.ok(!names.includes(hop));
      }),
      { numRuns: 1_000 },
    );
  });
});

describe('HTTP/2 request fields', () => {
  test('become HTTP/1 fields: Host first, cookie crumbs joined', () => {
    const raw = [
      ':method',
      'GET',
      ':path',
      '/x',
      ':scheme',
      'https',
      ':authority',
      HOST,
      'cookie',
      'a=1',
      'x-a',
      'b',
      'cookie',
      'c=2',
      'te',
      'trailers',
    ];
    const from = peer('203.0.113.5');
    const request = readHttp2(raw, true, from);
    assert.equal(request.fields.fault, undefined);
    assert.deepEqual(forwardHeaders(request.fields, from, undefined).slice(0, 8), [
      'Host',
      HOST,
      'cookie',
      'a=1; c=2',
      'x-a',
      'b',
      'TE',
      'trailers',
    ]);
    assert.equal(request.target, '/x');
    assert.equal(request.tunnelName, 'api');
  });

  test('may repeat the authority as Host, but not contradict it', () => {
    const raw = [':method', 'GET', ':path', '/', ':authority', HOST];
    assert.equal(readHttp2([...raw, 'host', HOST], true, peer('1.1.1.1')).fields.fault, undefined);
    assert.equal(readHttp2([...raw, 'host', 'evil.example'], true, peer('1.1.1.1')).fields.fault?.code, 'bad_request');
  });
});

describe('the visitor behind trusted proxies', () => {
  const from = peer('10.0.0.7', ['10.0.0.0/8', 'fd00::/8']);
  const cases: [string, string][] = [
    ['198.51.100.9', '198.51.100.9'],
    ['6.6.6.6, 198.51.100.9', '198.51.100.9'],
    ['198.51.100.9, 10.1.1.1, fd00::1', '198.51.100.9'],
    ['198.51.100.9:4711', '198.51.100.9'],
    ['[2001:db8::1]:99', '2001:db8::1'],
    ['::ffff:198.51.100.9', '198.51.100.9'],
    ['garbage', '10.0.0.7'],
    ['garbage, 10.1.1.1', '10.1.1.1'],
    ['10.1.1.1', '10.1.1.1'],
    [',', '10.0.0.7'],
  ];
  for (const [list, address] of cases) {
    test(`is ${address} for "${list}"`, () => assert.equal(from.visitorAddress(list), address));
  }

  test('bad ranges are refused, addresses are brought to one form', () => {
    for (const range of ['10.0.0.0/33', 'x', '10.0.0.0/', '::/129', '1.2.3']) {
      assert.throws(() => createTrust([range]), { code: 'invalid_config' });
    }
    assert.equal(plainAddress('::ffff:10.0.0.1'), '10.0.0.1');
    assert.equal(plainAddress('fe80::1%eth0'), 'fe80::1');
  });
});

describe('response headers on their way to the visitor', () => {
  test('are the same array when there is nothing to drop', () => {
    const headers = ['Content-Type', 'text/plain', 'Content-Length', '3', 'Set-Cookie', 'a', 'set-cookie', 'b'];
    assert.equal(responseHeaders(headers).headers, headers);
    assert.equal(responseHeaders(headers).contentLength, 3);
  });

  test('lose what belongs to one hop, and what Connection names, but not what a visitor needs', () => {
    const headers = [
      'Connection',
      'X-Hop, Set-Cookie, close',
      'Keep-Alive',
      'timeout=5',
      'Transfer-Encoding',
      'chunked',
      'X-Hop',
      '1',
      'Set-Cookie',
      'a',
      'Upgrade',
      'h2c',
    ];
    assert.deepEqual(responseHeaders(headers).headers, ['Set-Cookie', 'a']);
  });

  test('may repeat one Content-Length, which is then sent once, but not give two', () => {
    const same = responseHeaders(['Content-Length', '5', 'content-length', '5']);
    assert.deepEqual([same.valid, same.headers], [true, ['Content-Length', '5']]);
    for (const headers of [
      ['Content-Length', '5', 'Content-Length', '6'],
      ['Content-Length', '-1'],
      ['Content-Length', '5, 5'],
      ['Content-Length', '0x5'],
      ['Content-Length', '99999999999999999999'],
    ]) {
      assert.equal(responseHeaders(headers).valid, false);
    }
  });
});

test('trailers lose what only means something in a header section', () => {
  assert.deepEqual(
    forwardTrailers([
      'Grpc-Status',
      '0',
      'Content-Length',
      '5',
      'Authorization',
      'x',
      'X-Forwarded-For',
      'y',
      'Host',
      'z',
      'Transfer-Encoding',
      'chunked',
      'Set-Cookie',
      'a',
    ]),
    ['Grpc-Status', '0'],
  );
  assert.equal(forwardTrailers(['Host', 'z']), undefined);
});

test('upgrades to anything but h2c, HTTP and TLS are forwarded', () => {
  assert.equal(forwardedUpgrade('websocket'), 'websocket');
  assert.equal(forwardedUpgrade('h2c'), undefined);
  assert.equal(forwardedUpgrade('TLS/1.0, HTTP/2.0'), undefined);
  assert.equal(forwardedUpgrade('h2c, foo/2'), 'foo/2');
  assert.equal(forwardedUpgrade(undefined), undefined);
});
