import { freePort } from '../../../shared/testkit/local-service.ts';
import type { CoreNode } from '../../core/node.ts';
import { startCore } from './tunnel.ts';

/** Secret of the clusters of tests. */
export const CLUSTER_SECRET = 'a cluster secret for tests only, long enough too';

const MAX_ATTEMPTS = 5;

/** A node of a cluster in the process of the test, which agents and other nodes reach. @param redisUrl the cluster's Redis */
export async function startClusterCore(
  name: string,
  redisUrl: string,
  flags: Readonly<Record<string, string>> = {},
): Promise<CoreNode> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startOnFreePorts(name, redisUrl, flags);
    } catch (error) {
      // Another program of this machine may take a port between the moment it was found free and its use.
      if (attempt === MAX_ATTEMPTS || !String(error).includes('EADDRINUSE')) throw error;
    }
  }
}

async function startOnFreePorts(
  name: string,
  redisUrl: string,
  flags: Readonly<Record<string, string>>,
): Promise<CoreNode> {
  const port = await freePort();
  const relayPort = await freePort();
  return startCore({
    'redis-url': redisUrl,
    'cluster-secret': CLUSTER_SECRET,
    'node-id': name,
    'agent-addr': `127.0.0.1:${port}`,
    'agent-advertise': `127.0.0.1:${port}`,
    'relay-addr': `127.0.0.1:${relayPort}`,
    'relay-advertise': `127.0.0.1:${relayPort}`,
    'drain-timeout': '20s',
    'drain-delay': '500ms',
    ...flags,
  });
}
