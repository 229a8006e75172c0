import { after, before } from 'node:test';
import { type RedisServer, startRedis } from '../../testkit/redis-server.ts';
import { registryContract } from '../registry.contract.ts';
import { emptyButOpen, openRegistry } from './support.contract.ts';

let server: RedisServer;
before(async () => {
  server = await startRedis();
});
after(() => server.close());

registryContract(
  'redis',
  async () => {
    await emptyButOpen([server.client]);
    const address = { kind: 'single', url: server.url } as const;
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
  { manyTunnels: 10_000, races: 100 },
);
