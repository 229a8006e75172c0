import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { localServices } from './local-services.ts';
import { cidr, hostName, listenAddress, ownHostName, targetAddress, tunnelName, urlTemplate } from './net-values.ts';
import type { ValueType } from './option.ts';
import { perService } from './per-service.ts';
import { boolean, bytes, duration, integer, listOf, secretFile, secretText, text } from './values.ts';

function decode<T>(type: ValueType<T>, raw: unknown): T | string {
  const result = type.schema.safeDecode(raw);
  return result.success ? result.data : `refused: ${result.error.issues[0]?.message}`;
}

/** Each accepted form and what it becomes; each refused form. */
function golden<T>(
  name: string,
  type: ValueType<T>,
  accepted: readonly [unknown, T][],
  refused: readonly unknown[],
): void {
  describe(name, () => {
    for (const [raw, value] of accepted) {
      test(`takes ${JSON.stringify(raw)}`, () => assert.deepEqual(decode(type, raw), value));
      test(`writes what it read from ${JSON.stringify(raw)} so that it reads the same again`, () => {
        assert.deepEqual(decode(type, type.schema.encode(value)), value);
      });
    }
    for (const raw of refused) {
      test(`refuses ${JSON.stringify(raw)}`, () => assert.match(String(decode(type, raw)), /^refused: .+/));
    }
  });
}

golden(
  'a duration',
  duration('0s', '48h'),
  [
    ['30s', 30_000],
    ['500ms', 500],
    ['5m', 300_000],
    ['1h', 3_600_000],
    ['1m30s', 90_000],
    ['1.5s', 1500],
    ['1d', 86_400_000],
    ['0', 0],
    [0, 0],
  ],
  ['30', 30, '-1s', '49h', '5 m', 's', '', 'soon', null, true, ['1s']],
);

golden(
  'a size',
  bytes('0', '10GiB'),
  [
    ['64KiB', 65_536],
    ['10MB', 10_000_000],
    ['1GiB', 1_073_741_824],
    ['96kib', 98_304],
    ['1.5KiB', 1536],
    ['512', 512],
    [513, 513],
    ['7B', 7],
    [0, 0],
  ],
  ['11GiB', '-1', '1XB', '', 'big', 1.5, null, '0.3B'],
);

golden(
  'an integer',
  integer(1, 8),
  [
    ['1', 1],
    [8, 8],
  ],
  ['0', 9, '1.5', 2.5, '', ' 3', '0x3', '1e0', true, null, Number.NaN],
);

golden(
  'a switch',
  boolean(),
  [
    ['true', true],
    [false, false],
  ],
  ['yes', 1, '', 'TRUE', null],
);

golden(
  'an address to listen on',
  listenAddress(),
  [
    [':8443', { host: '', port: 8443 }],
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['[::1]:80', { host: '::1', port: 80 }],
    ['localhost:9000', { host: 'localhost', port: 9000 }],
    [9000, { host: '', port: 9000 }],
    ['9000', { host: '', port: 9000 }],
  ],
  ['::1:80', ':65536', ':', 'localhost', 'http://localhost:80', '[::g]:80', '1.2.3.4.5:80', '', -1, null],
);

golden(
  'an address to connect to',
  targetAddress(8443),
  [
    ['tunnel.example.com:443', { host: 'tunnel.example.com', port: 443 }],
    ['Tunnel.Example.com', { host: 'tunnel.example.com', port: 8443 }],
    ['::1', { host: '::1', port: 8443 }],
    ['[::1]', { host: '::1', port: 8443 }],
    ['[::1]:443', { host: '::1', port: 443 }],
    ['culvert_core:8443', { host: 'culvert_core', port: 8443 }],
  ],
  ['https://tunnel.example.com', 'host:0', ':8443', 'host:port', 'a b', '', 8443],
);

golden(
  'a domain',
  hostName(),
  [
    ['Example.COM', 'example.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
  ],
  ['127.0.0.1', '::1', 'a..b', '-a.example', 'a_b.example', 'a/b', '', `${'a'.repeat(64)}.example`],
);

golden(
  "a domain with the machine's name in it",
  ownHostName(() => 'Box-7.lan.example'),
  [
    ['{host}.tunnel.example.com', 'box-7.tunnel.example.com'],
    ['core.example', 'core.example'],
  ],
  ['{name}.example', '{host}_x.example', '{host}.{host}', '', 7],
);

golden(
  'the name of a tunnel',
  tunnelName(),
  [
    ['API', 'api'],
    ['bücher', 'xn--bcher-kva'],
    ['3000', '3000'],
    ['a'.repeat(63), 'a'.repeat(63)],
    ['www.example.com', 'www.example.com'],
  ],
  ['a'.repeat(64), '-api', 'api-', 'a_b', 'a b', '%61', '', 7, '10.0.0.1', 'a\n'],
);

golden(
  'a network',
  cidr(),
  [
    ['10.0.0.0/8', { address: '10.0.0.0', prefix: 8, family: 'ipv4' }],
    ['192.0.2.1', { address: '192.0.2.1', prefix: 32, family: 'ipv4' }],
    ['fd00::/8', { address: 'fd00::', prefix: 8, family: 'ipv6' }],
    ['::1', { address: '::1', prefix: 128, family: 'ipv6' }],
  ],
  ['10.0.0.0/33', '10.0.0/8', 'fd00::/129', 'localhost', '10.0.0.0/', ''],
);

golden(
  'a template of URLs',
  urlTemplate(),
  [
    ['https://{name}.tunnel.example.com', 'https://{name}.tunnel.example.com'],
    ['https://{name}.tunnel.example.com/', 'https://{name}.tunnel.example.com'],
    ['http://{name}.localhost:{port}', 'http://{name}.localhost:{port}'],
  ],
  [
    'https://tunnel.example.com',
    'https://tunnel.example.com/{name}',
    'https://{name}.{name}.example.com',
    'ftp://{name}.example.com',
    'https://u:p@{name}.example.com',
    'https://{name}.{zone}.example.com',
    '{name}.example.com',
    'https://{name}.example.com/?q',
  ],
);

const web = { name: 'web', scheme: 'http', host: 'localhost', port: 3000, url: 'http://localhost:3000' } as const;
golden(
  'local services',
  localServices(),
  [
    ['3000', [{ ...web, name: '' }]],
    [3000, [{ ...web, name: '' }]],
    ['localhost:3000', [{ ...web, name: '' }]],
    ['http://localhost:3000/', [{ ...web, name: '' }]],
    ['WEB=http://localhost:3000', [web]],
    [{ web: 3000 }, [web]],
    [['web=3000'], [web]],
    [
      'web=3000, rpc=h2c://[::1]:50051',
      [web, { name: 'rpc', scheme: 'h2c', host: '::1', port: 50_051, url: 'h2c://[::1]:50051' }],
    ],
    ['https://10.0.0.1', [{ name: '', scheme: 'https', host: '10.0.0.1', port: 443, url: 'https://10.0.0.1:443' }]],
    ['h2://svc:80', [{ name: '', scheme: 'h2', host: 'svc', port: 80, url: 'h2://svc:80' }]],
  ],
  [
    '',
    '0',
    '70000',
    'ftp://localhost',
    'http://localhost:3000/path',
    'http://u:p@localhost',
    'http://local=host',
    'http://[localhost]',
    'http://::1:80',
    'api=3000,api=3001',
    'api=3000,3001',
    '3000,3001',
    'a_b=3000',
    '=3000',
    'api=',
    [],
    {},
    null,
    { web: {} },
  ],
);

describe('a list', () => {
  const list = listOf(cidr(), '<cidr,…>');

  test('is text with commas or a list of a file', () => {
    assert.deepEqual(decode(list, '10.0.0.0/8, ::1'), decode(list, ['10.0.0.0/8', '::1']));
  });

  test('is refused with the entry that is wrong or comes twice', () => {
    assert.match(String(decode(list, '10.0.0.0/8,nowhere')), /"nowhere" is not a network/);
    assert.match(String(decode(list, '::1,::1/128')), /"::1\/128" is listed twice/);
  });
});

describe('a secret', () => {
  test('is measured in bytes and never repeated in a refusal', () => {
    assert.equal(decode(secretText(32, 'too short'), 'ü'.repeat(16)), 'ü'.repeat(16));
    assert.equal(decode(secretText(32, 'make a longer one'), 'hunter2'), 'refused: has 7 bytes: make a longer one');
    assert.equal(decode(secretText(1, ''), 12345678), 'refused: must be text: put the number in quotes');
  });

  test('in a file is read without the white space around it', (context) => {
    const directory = mkdtempSync(join(tmpdir(), 'culvert-values-'));
    context.after(() => rmSync(directory, { recursive: true }));
    const path = join(directory, 'secret');
    writeFileSync(path, `${'k'.repeat(32)}\n`);
    assert.deepEqual(decode(secretFile(32, ''), path), { path, content: 'k'.repeat(32) });
    writeFileSync(path, ' \n');
    assert.equal(decode(secretFile(1, ''), path), 'refused: is empty');
    assert.match(String(decode(secretFile(1, ''), `${path}.none`)), /does not exist$/);
    assert.match(String(decode(secretFile(1, ''), directory)), /is a directory/);
  });
});

test('a refused value is quoted on one line and cut to a bounded length', () => {
  const refused = String(decode(text('<x>', 'short', /^.{1,5}$/), `a\nb\x1b[31m${'x'.repeat(1000)}`));
  assert.ok(refused.length < 120, refused);
  assert.doesNotMatch(refused, /\p{Cc}/u);
});

golden(
  'a value for each service',
  perService(integer(1, 2)),
  [
    ['1', { all: 1, named: new Map() }],
    [2, { all: 2, named: new Map() }],
    ['api=1', { all: undefined, named: new Map([['api', 1]]) }],
    ['API=1, web = 2', { all: undefined, named: new Map([['api', 1], ['web', 2]]) }], // biome-ignore format: one row
    ['api=1,2', { all: 2, named: new Map([['api', 1]]) }],
    [{ api: '1', web: 2 }, { all: undefined, named: new Map([['api', 1], ['web', 2]]) }], // biome-ignore format: one row
    [['2', 'api=1'], { all: 2, named: new Map([['api', 1]]) }],
  ],
  ['', '3', '1,2', 'api=1,api=2', 'api=1,API=2', 'api=3', '-=1', 'api=', 3, null, true, [], {}, { api: 3 }, [['1']]],
);
