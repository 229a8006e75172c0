import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CulvertError } from '../errors/codes.ts';
import { type NameRules, normalizeTunnelName } from './names.ts';

function refusal(input: string, rules?: NameRules): string {
  try {
    normalizeTunnelName(input, rules);
  } catch (error) {
    assert.ok(error instanceof CulvertError);
    assert.equal(error.code, 'invalid_name');
    return error.message;
  }
  assert.fail(`${JSON.stringify(input)} was accepted`);
}

describe('a tunnel name', () => {
  test('is brought to one spelling', () => {
    assert.equal(normalizeTunnelName('Api'), 'api');
    assert.equal(normalizeTunnelName('a'), 'a');
    assert.equal(normalizeTunnelName('0'), '0');
    assert.equal(normalizeTunnelName('123'), '123');
    assert.equal(normalizeTunnelName('x'.repeat(63)), 'x'.repeat(63));
    assert.equal(normalizeTunnelName('Bücher'), 'xn--bcher-kva');
    assert.equal(normalizeTunnelName('XN--BCHER-KVA'), 'xn--bcher-kva');
    assert.equal(normalizeTunnelName('App.Example.COM.'), 'app.example.com');
    assert.equal(normalizeTunnelName('bücher.example'), 'xn--bcher-kva.example');
    assert.equal(normalizeTunnelName('日本。例え'), 'xn--wgv71a.xn--r8jz45g');
  });

  test('is refused with the reason when it is not a host name', () => {
    assert.match(refusal(''), /is empty/);
    assert.match(refusal('-a'), /hyphen/);
    assert.match(refusal('a-'), /hyphen/);
    assert.match(refusal('a_b'), /letters, digits and hyphens/);
    assert.match(refusal('a b'), /letters/);
    assert.match(refusal('a\nb'), /letters/);
    assert.match(refusal('a/b'), /letters/);
    assert.match(refusal('a:80'), /letters/);
    assert.match(refusal('bücher/x'), /letters/);
    assert.match(refusal('bü\tcher'), /letters/);
    assert.match(refusal('user@bücher'), /letters/);
    assert.match(refusal('b%C3%BCcher'), /letters/);
    assert.match(refusal('x'.repeat(64)), /label longer than 63/);
    assert.match(refusal('a..b'), /empty label/);
    assert.match(refusal('.'), /empty label/);
    assert.match(refusal('.a'), /empty label/);
    assert.match(refusal('xn--iñvalid'), /internationalised/);
    assert.match(refusal(`${'a.'.repeat(128)}`), /longer than 253/);
    assert.match(refusal('y'.repeat(100_000)), /longer than 253/);
  });

  test('is refused when a browser would take it for an IP address', () => {
    assert.match(refusal('127.0.0.1'), /IP address/);
    assert.match(refusal('example.0x7f'), /IP address/);
    assert.match(refusal('１２７'), /IP address/);
  });

  test('is refused when it is reserved, in any spelling', () => {
    const rules = { reserved: new Set(['admin', 'xn--bcher-kva']) };
    assert.match(refusal('Admin', rules), /reserved/);
    assert.match(refusal('bücher', rules), /reserved/);
    assert.equal(normalizeTunnelName('admin.example.org', rules), 'admin.example.org');
  });

  test('cannot imitate the subdomain of another tunnel as a custom domain', () => {
    const rules = { baseDomain: 'Tunnel.example' };
    assert.match(refusal('victim.tunnel.example', rules), /own domain/);
    assert.match(refusal('tunnel.example.', rules), /own domain/);
    assert.equal(normalizeTunnelName('nottunnel.example', rules), 'nottunnel.example');
  });

  test('comes out unchanged when normalised again, whatever went in', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.domain(), fc.ipV4(), fc.ipV6()), (input) => {
        let once: string;
        try {
          once = normalizeTunnelName(input);
        } catch (error) {
          assert.ok(error instanceof CulvertError && error.code === 'invalid_name');
          return;
        }
        assert.match(once, /^[a-z0-9.-]{1,253}$/);
        assert.equal(normalizeTunnelName(once), once);
      }),
      { numRuns: 2000 },
    );
  });
});
