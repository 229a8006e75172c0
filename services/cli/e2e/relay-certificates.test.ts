import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { freePort, startHttpService } from '../../../shared/testkit/local-service.ts';
import { startRedis } from '../../../shared/testkit/redis-server.ts';
import { clusterIdentity } from '../../../shared/tls/cluster-identity.ts';
import { connect } from '../../agent/index.ts';
import { agentFor, signToken, startCore } from './tunnel.ts';

test('nodes whose relay certificates come from files serve each other, and let no other authority in', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'culvert-relay-'));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const redis = await startRedis();
  t.after(() => redis.close());
  const start = async (name: string, authority: string) => {
    const identity = await clusterIdentity(authority, name);
    const files = Object.entries({ ca: identity.ca, cert: identity.cert, key: identity.key }).map(([kind, pem]) => {
      writeFileSync(join(dir, `${name}-${kind}`), pem);
      return [`relay-tls-${kind}`, join(dir, `${name}-${kind}`)];
    });
    const [agentPort, relayPort] = [await freePort(), await freePort()];
    const core = await startCore({
      'redis-url': redis.url,
      'node-id': name,
      'agent-addr': `127.0.0.1:${agentPort}`,
      'relay-addr': `127.0.0.1:${relayPort}`,
      'relay-advertise': `127.0.0.1:${relayPort}`,
      ...Object.fromEntries(files),
    });
    t.after(() => core.stop(0));
    return core;
  };
  const ours = 'the authority of this cluster, in a test only';
  const [holder, entry] = [await start('holder', ours), await start('entry', ours)];
  const stranger = await start('stranger', 'the authority of another cluster, in a test');
  const service = await startHttpService((_request, response) => response.end('here'));
  t.after(() => service.close());
  const agent = connect(agentFor(holder, await signToken(), { api: service.url }));
  t.after(() => agent.close(0));
  await agent.ready;
  const ask = (core: typeof holder) => visit(`http://api.localhost:${core.addresses.publicPort}/`);
  await until('the other node serves it', async () => (await ask(entry)).text === 'here', 10_000);
  await until('the stranger knows of it', async () => (await ask(stranger)).status !== 404, 10_000);
  assert.equal((await ask(stranger)).status, 502);
});
