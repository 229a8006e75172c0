import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { HostTable, resolveHost, tunnelName } from './host.ts';

const BASE = 'tunnel.example';

describe('tunnelName', () => {
  const names: [string, string | undefined][] = [
    ['api.tunnel.example', 'api'],
    ['api.tunnel.example:8080', 'api'],
    ['api.tunnel.example:', 'api'],
    ['API.Tunnel.EXAMPLE', 'api'],
    ['api.tunnel.example.', 'api'],
    ['a.b.tunnel.example', undefined],
    ['tunnel.example', undefined],
    ['tunnel.example:80', undefined],
    ['shop.other.example', 'shop.other.example'],
    ['apitunnel.example', 'apitunnel.example'],
    ['api', undefined],
    ['localhost:3000', undefined],
    ['127.0.0.1', undefined],
    ['[::1]', undefined],
    ['[::1]:8080', undefined],
    ['xn--bcher-kva.tunnel.example', 'xn--bcher-kva'],
    [Buffer.from('bücher.tunnel.example').toString('latin1'), 'xn--bcher-kva'],
  ];
  for (const [host, name] of names) {
    test(`${host} is ${name ?? 'no tunnel'}`, () => {
      assert.equal(tunnelName(host, BASE), name);
      assert.equal(resolveHost(host, BASE).valid, true);
    });
  }

  for (const host of [
    '',
    'a b',
    'a/b',
    'u@h.example',
    'a..b',
    '.a',
    'h:port',
    'h:123456',
    '[::1',
    '[1.2.3.4]',
    '[::1]x',
    'a,b',
    'a\\b',
    'a%41',
    'h#',
    'a'.repeat(300),
  ]) {
    test(`${JSON.stringify(host.slice(0, 20))} is refused`, () => {
      assert.deepEqual(resolveHost(host, BASE), { valid: false, name: undefined });
    });
  }
});

describe('HostTable', () => {
  test('keeps a host in use and stays bounded while random hosts pour in', () => {
    const table = new HostTable(BASE, 64);
    const hot = table.resolve('hot.tunnel.example');
    for (let i = 0; i < 10_000; i++) {
      table.resolve(`r${i}.tunnel.example`);
      if (i % 16 === 0) assert.equal(table.resolve('hot.tunnel.example'), hot, 'the same object: it was not forgotten');
      assert.ok(table.size <= 64);
    }
  });

  test('does not remember hosts that are too long', () => {
    const table = new HostTable(BASE);
    table.resolve('x'.repeat(5_000));
    assert.equal(table.size, 0);
  });
});
