import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Refusal } from './option.ts';
import { hasRedisPassword, parseRedisUrl, withRedisPassword } from './redis-address.ts';

test('one server is named by an ordinary URL', () => {
  assert.deepEqual(parseRedisUrl('rediss://u:p%40@redis.example:7000/2'), {
    kind: 'single',
    url: 'rediss://u:p%40@redis.example:7000/2',
  });
});

test('sentinels are named with the master that they watch', () => {
  assert.deepEqual(parseRedisUrl('redis+sentinel://u:p@one,two:7000,[::1]:7001/main'), {
    kind: 'sentinel',
    sentinels: [
      { host: 'one', port: 26379 },
      { host: 'two', port: 7000 },
      { host: '::1', port: 7001 },
    ],
    name: 'main',
    url: 'redis://u:p@one:26379',
  });
});

test('a Redis Cluster is named by some of its nodes, which share credentials and TLS', () => {
  assert.deepEqual(parseRedisUrl('rediss+cluster://:secret@one,10.0.0.2:7000'), {
    kind: 'cluster',
    urls: ['rediss://:secret@one:6379', 'rediss://:secret@10.0.0.2:7000'],
  });
});

for (const [written, why] of [
  ['http://redis', /redis:\/\/ or rediss:\/\//],
  ['redis://', /redis:\/\/ or rediss:\/\//],
  ['redis+sentinel://one,two', /master is missing/],
  ['redis+sentinel://one,,two/main', /host:port/],
  ['redis+cluster://one/3', /no database/],
  ['redis+cluster://one:99999', /host:port/],
  ['redis://:top%zzsecret@one', /percent-encoded/],
  ['redis+cluster://:top%zzsecret@one', /percent-encoded/],
] as const) {
  test(`${written} is refused without repeating a password`, () => {
    const refusal = parseRedisUrl(written);
    assert.ok(refusal instanceof Refusal);
    assert.match(refusal.text, why);
    assert.doesNotMatch(refusal.text, /secret/);
  });
}

for (const [written, complete] of [
  ['redis://redis:6379/2', 'redis://:a%40b%2F%25@redis:6379/2'],
  ['rediss://user@[::1]:7000', 'rediss://user:a%40b%2F%25@[::1]:7000'],
  ['redis+sentinel://one,two:7000/main', 'redis+sentinel://:a%40b%2F%25@one,two:7000/main'],
  ['rediss+cluster://user@one,two', 'rediss+cluster://user:a%40b%2F%25@one,two'],
] as const) {
  test(`${written} takes a password from elsewhere`, () => {
    assert.equal(hasRedisPassword(written), false);
    assert.equal(withRedisPassword(written, 'a@b/%'), complete);
    assert.equal(hasRedisPassword(complete), true);
    assert.ok(!(parseRedisUrl(complete) instanceof Refusal));
  });
}
