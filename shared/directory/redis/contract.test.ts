import { after, before } from 'node:test';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { directoryContract } from '../directory.contract.ts';
import { emptyButOpen, twoNodes } from './support.contract.ts';

let server: RedisServer;
before(async () => {
  server = await startRedis();
});
after(() => server.close());

directoryContract('redis', async (options) => {
  await emptyButOpen([server.client]);
  return twoNodes({ kind: 'single', url: server.url }, options);
});
