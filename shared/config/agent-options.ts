import { BALANCES } from '../policy/tunnel-policy.ts';
import { identifier, loggingOptions } from './common-options.ts';
import { localServices } from './local-services.ts';
import { hostHeader, hostName, targetAddress, tunnelName } from './net-values.ts';
import { group, option } from './option.ts';
import { perService } from './per-service.ts';
import { defineSchema } from './schema.ts';
import { boolean, duration, integer, oneOf, readableFile, secretFile, secretText, text } from './values.ts';

/** The core's `agent-addr` port. */
const AGENT_PORT = 8443;

const connection = group('Connection', {
  server: option({
    type: targetAddress(AGENT_PORT),
    required: true,
    help: `The core's agent address, such as tunnel.example.com:${AGENT_PORT}.`,
  }),
  token: option({
    type: secretText(1, 'it is empty'),
    secret: true,
    help: 'Token of this agent (a JWT). Other users of the machine can see it as a flag.',
  }),
  'token-file': option({
    type: secretFile(1, 'it is empty'),
    help: 'File with the token; white space around it is ignored.',
  }),
  'agent-id': option({
    type: identifier(),
    unset: "the token's agent_id",
    help: "Id that the token must be for; a guard against another agent's token.",
  }),
  connections: option({
    type: integer(1, 8),
    default: '2',
    help: 'Sessions to keep open at once, so that losing one interrupts nothing.',
  }),
  'reconnect-interval': option({
    type: duration('100ms', '10m'),
    default: '5s',
    help: 'Longest wait between attempts to connect; waits grow up to it, with jitter.',
  }),
  'max-retries': option({
    type: integer(0, 1_000_000),
    default: '0',
    help: 'Attempts to connect before giving up; 0 is for ever.',
  }),
});

const tls = group('TLS', {
  tls: option({ type: boolean(), default: 'true', help: 'Connect to the core with TLS.' }),
  'tls-skip-verify': option({
    type: boolean(),
    default: 'false',
    help: 'Accept any certificate of the core. Whoever is on the path can then read the token; prefer ca-cert.',
  }),
  'tls-server-name': option({
    type: hostName(),
    unset: 'the host of server',
    help: "Name for SNI and for the check of the core's certificate.",
  }),
  'ca-cert': option({
    type: readableFile(),
    unset: "Node's built-in authorities",
    help: "PEM file with the authorities that may have signed the core's certificate.",
  }),
});

const services = group('Local services', {
  local: option({
    type: localServices(),
    required: true,
    help: 'Services to serve: name=url pairs, where each name is the subdomain; or one port or URL together with subdomain.',
  }),
  subdomain: option({ type: tunnelName(), help: 'Name for a single service that local gives without one.' }),
  balance: option({
    type: perService(oneOf(BALANCES)),
    unset: 'least-loaded',
    help: 'How the core spreads requests when several agents serve a tunnel; sticky keeps a visitor with one agent by a cookie. Of agents that ask for different ones, the one that connected last has its way.',
  }),
  'host-header': option({
    type: hostHeader(),
    default: 'preserve',
    help: "Host header for the local service: the visitor's (preserve), the local address (rewrite), or a host of your own.",
  }),
  'request-timeout': option({
    type: duration('100ms', '24h'),
    default: '30s',
    help: 'Time for the local service to begin its response; then the visitor gets 504.',
  }),
  'health-check-path': option({
    type: text('<path>', 'a path that starts with /', /^\/[\x21-\x7e]*$/),
    unset: 'no health check',
    help: 'Path to request from each local service, to mark its tunnel unhealthy while that fails.',
  }),
  'health-check-interval': option({
    type: duration('1s', '1h'),
    default: '10s',
    help: 'Time between health checks; has an effect only with health-check-path.',
  }),
  'local-tls-skip-verify': option({
    type: boolean(),
    default: 'false',
    help: 'Accept any certificate of an https or h2 service.',
  }),
});

const process = group('Process', {
  'metrics-port': option({
    type: integer(0, 65535),
    default: '9091',
    help: 'Port for Prometheus metrics and health (/health/live; /health/ready: a tunnel is served); 0 is off.',
  }),
  ...loggingOptions,
});

export const AGENT_SCHEMA = defineSchema({
  service: 'agent',
  envPrefix: 'AGENT_',
  options: { ...connection, ...tls, ...services, ...process },
  checks: [
    {
      keys: ['token', 'token-file'],
      problem: ({ token, tokenFile }, name) => {
        if (token === undefined && tokenFile === undefined) {
          return 'token is missing: give --token-file, --token, AGENT_TOKEN, or token in a configuration file';
        }
        return token !== undefined && tokenFile !== undefined
          ? `${name('token')} and ${name('token-file')} exclude each other: keep one`
          : undefined;
      },
    },
    {
      keys: ['local', 'subdomain'],
      problem: ({ local, subdomain }, name) => {
        const unnamed = local.some((service) => service.name === '');
        if (unnamed && subdomain === undefined) {
          return `${name('local')} has no name: write name=url, or give subdomain too`;
        }
        return !unnamed && subdomain !== undefined
          ? `${name('subdomain')} has no effect, because ${name('local')} already names its services: remove one of the names`
          : undefined;
      },
    },
    {
      keys: ['local', 'subdomain', 'balance'],
      problem: ({ local, subdomain, balance }, name) => {
        const served = local.map((service) => (service.name === '' ? subdomain : service.name));
        const unknown = [...(balance?.named.keys() ?? [])].find((each) => !served.includes(each));
        return unknown === undefined
          ? undefined
          : `${name('balance')} names ${unknown}, which ${name('local')} does not serve: it has ${served.join(', ')}`;
      },
    },
    {
      keys: ['tls', 'tls-skip-verify', 'tls-server-name', 'ca-cert'],
      problem: ({ tls, tlsSkipVerify, tlsServerName, caCert }, name) => {
        if (tls) {
          return tlsSkipVerify && caCert !== undefined
            ? `${name('ca-cert')} has no effect with tls-skip-verify: remove one of them`
            : undefined;
        }
        const useless = tlsSkipVerify
          ? 'tls-skip-verify'
          : tlsServerName !== undefined
            ? 'tls-server-name'
            : caCert !== undefined
              ? 'ca-cert'
              : undefined;
        return useless === undefined ? undefined : `${name(useless)} has no effect without tls: remove it`;
      },
    },
  ],
});
