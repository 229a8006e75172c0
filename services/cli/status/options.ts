import { defaultStateDir } from '../../../shared/config/common-options.ts';
import { ConfigError, type Fallback, gather, load } from '../../../shared/config/load.ts';
import { type Environment, option } from '../../../shared/config/option.ts';
import { defineSchema } from '../../../shared/config/schema.ts';
import { readUpCredentials, upCredentialsPath } from '../../../shared/config/up-credentials.ts';
import { integer, secretFile, secretText, text } from '../../../shared/config/values.ts';

/** `culvert status`. */
export const STATUS_SCHEMA = defineSchema({
  service: 'status',
  envPrefix: 'CULVERT_API_',
  options: {
    server: option({
      type: text(
        '<host:port|url>',
        'a host and port such as node1:9000, or a URL with http or https',
        /^(?:https?:\/\/[^\s/]+\/?|(?:\[[0-9A-Fa-f:.]+\]|[^\s/:]+)(?::\d{1,5})?)$/,
      ),
      unset: 'that of "culvert up" on this machine',
      help: 'Any node of the cluster: its dashboard-addr, port 9000 if none is given.',
    }),
    token: option({
      type: secretText(1, 'it is empty'),
      secret: true,
      unset: 'that of "culvert up" on this machine',
      help: 'Token for the API (culvert token create --role viewer). Other users of the machine can see it as a flag.',
    }),
    'token-file': option({
      type: secretFile(1, 'it is empty'),
      help: 'File with the token; white space around it is ignored.',
    }),
    limit: option({ type: integer(1, 500), default: '50', help: 'Agents, and tunnels, to show at most.' }),
    search: option({
      type: text('<text>', 'a text of up to 128 characters', /^.{1,128}$/),
      unset: 'all',
      help: 'Only agents and tunnels with this in their name or account.',
    }),
  },
  checks: [
    {
      keys: ['server', 'token', 'token-file'],
      problem: ({ server, token, tokenFile }, name) => {
        if (token !== undefined && tokenFile !== undefined) {
          return `${name('token')} and ${name('token-file')} exclude each other: keep one`;
        }
        if (server === undefined) return 'server is missing: give --server <host:port|url> or CULVERT_API_SERVER';
        return token === undefined && tokenFile === undefined
          ? 'token is missing: give --token-file, --token, CULVERT_API_TOKEN or CULVERT_API_TOKEN_FILE; make one with "culvert token create --role viewer"'
          : undefined;
      },
    },
  ],
});

export interface StatusConfig {
  /** Where the API is, without a path. */
  readonly url: string;
  readonly token: string;
  readonly limit: number;
  readonly search: string | undefined;
}

/**
 * Without a server and token of its own it uses those that `culvert up` left.
 * @throws ConfigError `invalid_config`
 */
export function statusConfig(
  flags: Readonly<Record<string, unknown>>,
  env: Environment,
  stateDir: string | undefined,
): StatusConfig {
  const { given } = gather(STATUS_SCHEMA, { flags, env });
  // One of the two alone is not completed from the file: that would send its token to another server.
  const configured = ['server', 'token', 'token-file'].some((key) => given.has(key));
  const { TUNNEL_STATE_DIR } = env;
  const directory = stateDir ?? (TUNNEL_STATE_DIR || defaultStateDir(env));
  const values = load(STATUS_SCHEMA, { flags, env, fallbacks: configured ? [] : [upFallback(directory)] });
  const { server = '', token = values.tokenFile?.content ?? '', limit, search } = values;
  return { url: apiUrl(server), token, limit, search };
}

function upFallback(stateDir: string): Fallback {
  const path = upCredentialsPath(stateDir);
  const api = readUpCredentials(stateDir)?.api;
  if (api !== undefined) return { label: path, values: { server: api.url, token: api.token } };
  throw new ConfigError([
    `no server to ask: start one with "culvert up" (it leaves its address in ${path}), or give --server and --token-file`,
  ]);
}

function apiUrl(server: string): string {
  if (/^https?:/.test(server)) return server.replace(/\/$/, '');
  return `http://${/:\d+$/.test(server) ? server : `${server}:9000`}`;
}
