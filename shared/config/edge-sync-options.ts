import { loggingOptions } from './common-options.ts';
import { hostName, listenAddress } from './net-values.ts';
import { group, option } from './option.ts';
import { redisUrl } from './redis-address.ts';
import { REDIS_KEYS, REDIS_URL_HELP, redisAccessOptions, redisProblem } from './redis-options.ts';
import { runtimeAddress } from './runtime-address.ts';
import { defineSchema } from './schema.ts';
import { directory, integer, listOf } from './values.ts';

const haproxy = group('HAProxy', {
  haproxy: option({
    type: listOf(runtimeAddress(), '<socket,…>'),
    default: '/run/haproxy/admin.sock',
    help: 'Runtime API (level admin) of each HAProxy to keep in step: the path of a Unix socket, or host:port.',
  }),
  'haproxy-state-dir': option({
    type: directory(),
    default: '/var/lib/culvert-edge',
    help: 'Directory for what HAProxy reads when it starts: owners.map, nodes.map and servers.state (CULVERT_STATE_DIR there).',
  }),
});

const cluster = group('Cluster', {
  'redis-url': option({ type: redisUrl(), secret: true, required: true, help: REDIS_URL_HELP }),
  ...redisAccessOptions,
  'base-domain': option({
    type: hostName(),
    default: 'localhost',
    help: 'As given to the nodes: tunnels are served at <name>.<base domain>.',
  }),
  'max-names': option({
    type: integer(1000, 10_000_000),
    default: '250000',
    help: 'Tunnel names that HAProxy is told the nodes of, about 1.5 KB of memory each; requests for others are balanced.',
  }),
});

const process = group('Process', {
  'metrics-addr': option({
    type: listenAddress(),
    default: ':9092',
    help: 'Prometheus metrics, /health/live and /health/ready.',
  }),
  'log-level': loggingOptions['log-level'],
});

export const EDGE_SYNC_SCHEMA = defineSchema({
  service: 'edge-sync',
  envPrefix: 'EDGE_',
  options: { ...haproxy, ...cluster, ...process },
  checks: [{ keys: REDIS_KEYS, problem: redisProblem }],
});
