import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CulvertError } from '../../../shared/errors/codes.ts';
import { hostOverride, parseTarget } from './target.ts';

describe('the URL of a local service', () => {
  test('gives protocol, address, authority and server name', () => {
    const of = (url: string) => {
      const { protocol, tls, host, port, authority, serverName, loopback } = parseTarget('web', url);
      return [protocol, tls, host, port, authority, serverName, loopback];
    };
    assert.deepEqual(of('http://localhost:3000'), [
      'http1',
      false,
      'localhost',
      3000,
      'localhost:3000',
      'localhost',
      true,
    ]);
    assert.deepEqual(of('HTTPS://Example.COM/'), [
      'http1',
      true,
      'example.com',
      443,
      'example.com',
      'example.com',
      false,
    ]);
    assert.deepEqual(of('https://10.0.0.1:80'), ['http1', true, '10.0.0.1', 80, '10.0.0.1:80', undefined, false]);
    assert.deepEqual(of('h2c://[::1]:50051'), ['h2', false, '::1', 50051, '[::1]:50051', undefined, true]);
    assert.deepEqual(of('h2://grpc.test'), ['h2', true, 'grpc.test', 443, 'grpc.test', 'grpc.test', false]);
    assert.deepEqual(of('http://[::1]'), ['http1', false, '::1', 80, '[::1]', undefined, true]);
  });

  for (const url of [
    '',
    'localhost:3000',
    'ftp://h',
    'http://',
    'http://h:0',
    'http://h:70000',
    'http://u:p@h',
    'http://h/path',
    'http://h?q',
    'http://h#f',
    'http://a b',
  ]) {
    test(`refuses "${url}"`, () => {
      assert.throws(
        () => parseTarget('web', url),
        (error) => error instanceof CulvertError && error.code === 'invalid_config',
      );
    });
  }

  test('decides the Host that replaces the visitor’s', () => {
    const target = parseTarget('web', 'http://localhost:3000');
    assert.equal(hostOverride('preserve', target), undefined);
    assert.equal(hostOverride('rewrite', target), 'localhost:3000');
    assert.equal(hostOverride('a.test', target), 'a.test');
  });
});
