import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { createLogger } from '../observability/logger.ts';
import { until } from '../testkit/eventually.ts';
import { type RedisServer, startRedis } from '../testkit/redis-server.ts';
import { connect } from './connection.ts';

describe('the connection to redis', () => {
  let server: RedisServer;
  before(async () => {
    server = await startRedis();
  });
  after(() => server.close());

  test('comes back when the client library has given it up, and ends when it is closed', async () => {
    const link = connect({ kind: 'single', url: server.url }, 500, createLogger({ name: 'test', level: 'silent' }));
    const both = [link.commands, link.events];
    const ready = (): boolean => both.every(({ status }) => status === 'ready');
    await until('it is there', ready);
    for (const client of both) client.disconnect();
    await until('it was given up', () => both.every(({ status }) => status === 'end'));
    await until('it is back', ready);
    assert.equal(await link.commands.ping(), 'PONG');
    link.close();
    await until('it ends', () => both.every(({ status }) => status === 'end'));
    await wait(300);
    assert.deepEqual([link.commands.status, link.events.status], ['end', 'end']);
  });
});
