import { after, before } from 'node:test';
import { type RedisGroup, startRedisCluster } from '../../testkit/redis-server.ts';
import { directoryContract } from '../directory.contract.ts';
import { emptyButOpen, twoNodes } from './support.contract.ts';

let group: RedisGroup;
before(async () => {
  group = await startRedisCluster();
});
after(() => group.close());

directoryContract('redis cluster', async (options) => {
  await emptyButOpen(group.servers.map(({ client }) => client));
  return twoNodes({ kind: 'cluster', urls: group.servers.map(({ url }) => url) }, options);
});
