import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { API_AUDIENCE } from '../tokens/claims.ts';
import { defaultStateDir, identifier, loggingOptions, MIN_HS256_SECRET_BYTES, SHORT_SECRET } from './common-options.ts';
import { cidr, hostName, listenAddress, ownHostName, peerName, targetAddress, url, urlTemplate } from './net-values.ts';
import { group, option } from './option.ts';
import { redisUrl } from './redis-address.ts';
import { REDIS_KEYS, REDIS_URL_HELP, redisAccessOptions, redisProblem } from './redis-options.ts';
import { defineSchema } from './schema.ts';
import {
  bytes,
  directory,
  duration,
  integer,
  listOf,
  oneOf,
  readableFile,
  secretFile,
  secretText,
  text,
} from './values.ts';

const addresses = group('Addresses', {
  'agent-addr': option({ type: listenAddress(), default: ':8443', help: 'Where agents connect (TLS).' }),
  'public-addr': option({ type: listenAddress(), default: ':8080', help: 'Where visitors connect (HTTP).' }),
  'public-tls-addr': option({
    type: listenAddress(),
    unset: 'no HTTPS listener',
    help: 'Where visitors connect with HTTPS; needs public-tls-cert and public-tls-key.',
  }),
  'dashboard-addr': option({ type: listenAddress(), default: ':9000', help: 'Health checks and the API.' }),
  'metrics-addr': option({ type: listenAddress(), default: ':9090', help: 'Prometheus metrics.' }),
  'base-domain': option({
    type: hostName(),
    default: 'localhost',
    help: 'Tunnels are served at <name>.<base domain>.',
  }),
  'public-url': option({
    type: urlTemplate(),
    unset: 'made from base-domain and the public port, https when public-tls-addr is given',
    help: 'The URL that agents are told, with {name} for the tunnel and, if wanted, {port} for the public port.',
  }),
});

const authentication = group('Authentication', {
  'jwt-secret': option({
    type: secretText(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
    secret: true,
    help: 'Key that signs agent tokens (HS256), at least 32 bytes. Other users of the machine can see it as a flag.',
  }),
  'jwt-secret-file': option({
    type: secretFile(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
    help: 'File with that key; white space around it is ignored.',
  }),
  'jwks-url': option({
    type: url(['https:', 'http:']),
    help: 'JSON Web Key Set with the public keys that sign agent tokens. Use https outside a trusted network.',
  }),
  'jwt-issuer': option({
    type: text('<issuer>', 'an issuer'),
    unset: 'any issuer',
    help: 'Refuse tokens whose iss claim is another.',
  }),
  'jwt-audience': option({
    type: text('<audience>', 'an audience'),
    unset: 'any audience',
    help: 'Refuse tokens whose aud claim does not hold this.',
  }),
});

const tls = group('TLS', {
  'agent-tls-cert': option({
    type: readableFile(),
    unset: 'a certificate of its own, kept in state-dir',
    help: 'PEM certificate chain for agent-addr.',
  }),
  'agent-tls-key': option({ type: readableFile(), help: 'PEM private key of agent-tls-cert.' }),
  'public-tls-cert': option({ type: readableFile(), help: 'PEM certificate chain for public-tls-addr.' }),
  'public-tls-key': option({ type: readableFile(), help: 'PEM private key of public-tls-cert.' }),
});

const proxies = group('Proxies in front', {
  'trusted-proxies': option({
    type: listOf(cidr(), '<cidr,…>'),
    unset: 'none',
    help: 'Networks whose X-Forwarded-* headers and PROXY lines are believed.',
  }),
  'proxy-protocol': option({
    type: oneOf(['off', 'on']),
    default: 'off',
    help: 'Accept PROXY protocol v1 and v2 from trusted-proxies on the public listeners.',
  }),
});

const limits = group('Limits', {
  'max-connections': option({ type: integer(1, 1_000_000), default: '1000', help: 'Agent sessions on this node.' }),
  'max-connections-per-account': option({
    type: integer(1, 1_000_000),
    default: '50',
    help: 'Agent sessions of one account; a token may set less.',
  }),
  'max-tunnels-per-account': option({
    type: integer(1, 1_000_000),
    default: '100',
    help: 'Tunnel names of one account; a token may set less.',
  }),
  'max-visitors': option({ type: integer(1, 1_000_000), default: '20000', help: 'Visitor connections on this node.' }),
  'max-streams-per-session': option({
    type: integer(1, 1_000_000),
    default: '4096',
    help: 'Requests in flight on one agent session.',
  }),
  'max-header-size': option({
    type: bytes('1KiB', '112KiB'),
    default: '96KiB',
    help: 'Request line and headers of one request.',
  }),
  'max-body-size': option({ type: bytes('0', '1024GiB'), default: '0', help: 'Body of one request; 0 is no limit.' }),
  'session-buffer': option({
    type: bytes('1MiB', '64GiB'),
    default: '64MiB',
    help: 'Bytes that may be buffered for one agent session.',
  }),
  'process-buffer': option({
    type: bytes('1MiB', '1024GiB'),
    default: '512MiB',
    help: 'Bytes that may be buffered for all agent sessions of the process.',
  }),
});

const times = group('Times', {
  'heartbeat-interval': option({
    type: duration('100ms', '10m'),
    default: '15s',
    help: 'Time between heartbeats on an agent session.',
  }),
  'heartbeat-timeout': option({
    type: duration('200ms', '1h'),
    default: '30s',
    help: 'An agent session without traffic for this long is closed.',
  }),
  'auth-timeout': option({
    type: duration('100ms', '5m'),
    default: '10s',
    help: 'Time for an agent to authenticate after it connects.',
  }),
  'response-timeout': option({
    type: duration('100ms', '24h'),
    default: '120s',
    help: 'Time for the head of a response to come from the agent; then the visitor gets 504.',
  }),
  'idle-timeout': option({
    type: duration('1s', '1h'),
    default: '75s',
    help: 'A visitor connection without a request for this long is closed.',
  }),
  'drain-timeout': option({
    type: duration('0s', '1h'),
    default: '30s',
    help: 'Time for requests in flight to end at shutdown.',
  }),
  'drain-delay': option({
    type: duration('0s', '5m'),
    default: '3s',
    help: 'With other nodes there, time at shutdown in which visitors are still let in, until balancers have seen that this node is not ready; part of drain-timeout.',
  }),
});

const node = group('Node', {
  'node-id': option({
    type: identifier(),
    default: {
      text: 'the host name and a random suffix',
      compute: () =>
        `${
          hostname()
            .replace(/[^A-Za-z0-9.-]/g, '')
            .slice(0, 100) || 'node'
        }-${randomBytes(3).toString('hex')}`,
    },
    help: 'Name of this node, unique in the cluster.',
  }),
  'state-dir': option({
    type: directory(),
    default: { text: '$XDG_STATE_HOME/culvert, or ~/.local/state/culvert', compute: defaultStateDir },
    help: 'Directory for what outlives a restart, such as a generated certificate.',
  }),
  ...loggingOptions,
});

const cluster = group('Cluster', {
  'redis-url': option({
    type: redisUrl(),
    secret: true,
    unset: 'one node, with its registry in memory',
    help: REDIS_URL_HELP,
  }),
  ...redisAccessOptions,
  'cluster-secret': option({
    type: secretText(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
    secret: true,
    help: 'Secret that the nodes of a cluster share, at least 32 bytes; their certificates for each other come from it.',
  }),
  'cluster-secret-file': option({
    type: secretFile(MIN_HS256_SECRET_BYTES, SHORT_SECRET),
    help: 'File with that secret; white space around it is ignored.',
  }),
  'relay-tls-cert': option({
    type: readableFile(),
    unset: 'a certificate made from the cluster secret',
    help: 'PEM certificate chain of this node for the others, with the URI name culvert-node:<node-id>, for servers and clients; with relay-tls-key and relay-tls-ca instead of a cluster secret.',
  }),
  'relay-tls-key': option({ type: readableFile(), help: 'PEM private key of relay-tls-cert.' }),
  'relay-tls-ca': option({
    type: readableFile(),
    help: 'PEM certificates of the authorities that sign the certificates of nodes; whoever has one that names a node is let in.',
  }),
  'relay-addr': option({
    type: listenAddress(),
    default: ':7443',
    help: 'Where the other nodes connect (mutual TLS). Has an effect only with redis-url.',
  }),
  'agent-advertise': option({
    type: targetAddress(8443),
    unset: 'agents are not sent from node to node',
    help: 'Address that agents reach this node at, so that other nodes can send them here.',
  }),
  'agent-server-name': option({
    type: ownHostName(hostname),
    unset: 'agents cannot ask HAProxy for this node',
    help: 'Name for SNI by which agents reach this node through HAProxy, such as {host}.tunnel.example.com; its own certificate holds it.',
  }),
  'relay-advertise': option({
    type: targetAddress(7443),
    unset: 'the host name and the port of relay-addr',
    help: 'Address that the other nodes reach relay-addr at.',
  }),
  'edge-advertise': option({
    type: peerName(),
    unset: 'the host of relay-advertise',
    help: 'Host that HAProxy reaches the ports of this node at, for "culvert edge-sync".',
  }),
});

export const CORE_SCHEMA = defineSchema({
  service: 'core',
  envPrefix: 'TUNNEL_',
  options: { ...addresses, ...authentication, ...tls, ...proxies, ...limits, ...times, ...node, ...cluster },
  checks: [
    {
      keys: ['jwt-secret', 'jwt-secret-file', 'jwks-url'],
      problem: ({ jwtSecret, jwtSecretFile, jwksUrl }, name) => {
        const given = [
          ...(jwtSecret === undefined ? [] : [name('jwt-secret')]),
          ...(jwtSecretFile === undefined ? [] : [name('jwt-secret-file')]),
          ...(jwksUrl === undefined ? [] : [name('jwks-url')]),
        ];
        if (given.length === 0) {
          return 'nothing says how to verify agent tokens: give jwt-secret-file, jwt-secret (TUNNEL_JWT_SECRET) or jwks-url';
        }
        return given.length > 1 ? `${given.join(' and ')} exclude each other: keep one` : undefined;
      },
    },
    {
      keys: ['jwt-audience'],
      problem: ({ jwtAudience }, name) =>
        jwtAudience === API_AUDIENCE
          ? `${name('jwt-audience')}: ${API_AUDIENCE} is the audience of tokens for the API: choose another for agents`
          : undefined,
    },
    {
      keys: [
        'redis-url',
        'cluster-secret',
        'cluster-secret-file',
        'relay-tls-cert',
        'relay-tls-key',
        'relay-tls-ca',
        'relay-advertise',
        'agent-advertise',
        'agent-server-name',
        'edge-advertise',
      ],
      problem: (values, name) => {
        const { redisUrl, clusterSecret, clusterSecretFile } = values;
        const isSecretGiven = clusterSecret !== undefined || clusterSecretFile !== undefined;
        const files = [values.relayTlsCert, values.relayTlsKey, values.relayTlsCa].filter((file) => file !== undefined);
        if (redisUrl !== undefined) {
          if (files.length > 0) {
            if (isSecretGiven) return 'a cluster secret and relay-tls-cert exclude each other: keep one';
            return files.length === 3
              ? undefined
              : 'relay-tls-cert, relay-tls-key and relay-tls-ca belong together: give all';
          }
          if (clusterSecret !== undefined && clusterSecretFile !== undefined) {
            return `${name('cluster-secret')} and ${name('cluster-secret-file')} exclude each other: keep one`;
          }
          return isSecretGiven
            ? undefined
            : `${name('redis-url')} needs cluster-secret-file (or cluster-secret, or relay-tls-cert) too`;
        }
        if (isSecretGiven) return 'a cluster secret has no effect without redis-url: give that too';
        const useless = (
          [
            ['relay-tls-cert', values.relayTlsCert],
            ['relay-tls-key', values.relayTlsKey],
            ['relay-tls-ca', values.relayTlsCa],
            ['relay-advertise', values.relayAdvertise],
            ['agent-advertise', values.agentAdvertise],
            ['agent-server-name', values.agentServerName],
            ['edge-advertise', values.edgeAdvertise],
          ] as const
        ).find(([, value]) => value !== undefined)?.[0];
        return useless === undefined ? undefined : `${name(useless)} has no effect without redis-url: give that too`;
      },
    },
    { keys: REDIS_KEYS, problem: redisProblem },
    {
      keys: ['agent-tls-cert', 'agent-tls-key'],
      problem: ({ agentTlsCert, agentTlsKey }, name) => {
        if ((agentTlsCert === undefined) === (agentTlsKey === undefined)) return undefined;
        return agentTlsKey === undefined
          ? `${name('agent-tls-cert')} needs its private key: give agent-tls-key too`
          : `${name('agent-tls-key')} needs its certificate: give agent-tls-cert too`;
      },
    },
    {
      keys: ['public-tls-addr', 'public-tls-cert', 'public-tls-key'],
      problem: ({ publicTlsAddr, publicTlsCert, publicTlsKey }, name) => {
        if (publicTlsAddr !== undefined) {
          const complete = publicTlsCert !== undefined && publicTlsKey !== undefined;
          return complete ? undefined : `${name('public-tls-addr')} needs both public-tls-cert and public-tls-key`;
        }
        if (publicTlsCert === undefined && publicTlsKey === undefined) return undefined;
        const useless = publicTlsCert === undefined ? 'public-tls-key' : 'public-tls-cert';
        return `${name(useless)} has no effect without public-tls-addr: give that too, such as :443`;
      },
    },
    {
      keys: ['proxy-protocol', 'trusted-proxies'],
      problem: ({ proxyProtocol, trustedProxies }, name) =>
        proxyProtocol === 'on' && trustedProxies === undefined
          ? `${name('proxy-protocol')} needs trusted-proxies: say which networks may send PROXY lines`
          : undefined,
    },
    {
      keys: ['heartbeat-interval', 'heartbeat-timeout'],
      problem: ({ heartbeatInterval, heartbeatTimeout }, name) =>
        heartbeatTimeout > heartbeatInterval
          ? undefined
          : `${name('heartbeat-timeout')} must be longer than heartbeat-interval, else every idle session is closed`,
    },
    {
      keys: ['session-buffer', 'process-buffer'],
      problem: ({ sessionBuffer, processBuffer }, name) =>
        processBuffer >= sessionBuffer ? undefined : `${name('process-buffer')} must be at least session-buffer`,
    },
  ],
});
