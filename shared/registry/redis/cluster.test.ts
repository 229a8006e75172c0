import { after, before } from 'node:test';
import { type RedisGroup, startRedisCluster } from '../../testkit/redis-server.ts';
import { registryContract } from '../registry.contract.ts';
import { emptyButOpen, openRegistry } from './support.contract.ts';

let group: RedisGroup;
before(async () => {
  group = await startRedisCluster();
});
after(() => group.close());

registryContract(
  'redis cluster',
  async () => {
    await emptyButOpen(group.servers.map(({ client }) => client));
    const address = { kind: 'cluster', urls: group.servers.map(({ url }) => url) } as const;
    const [a, b] = await Promise.all([openRegistry('one', address), openRegistry('two', address)]);
    return {
      a,
      b,
      settled: async () => {
        await Promise.all([a.caughtUp(), b.caughtUp()]);
      },
      close: async () => {
        await Promise.all([a.close(), b.close()]);
      },
    };
  },
  { manyTunnels: 1000, races: 10 },
);
