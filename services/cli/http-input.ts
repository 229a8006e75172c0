import { AGENT_SCHEMA } from '../../shared/config/agent-options.ts';
import { defaultStateDir } from '../../shared/config/common-options.ts';
import { type AgentConfig, loadAgentConfig } from '../../shared/config/config.ts';
import { ConfigError, type Fallback, gather } from '../../shared/config/load.ts';
import { parseService } from '../../shared/config/local-services.ts';
import { type Environment, Refusal } from '../../shared/config/option.ts';
import { readUpCredentials, upCredentialsPath } from '../../shared/config/up-credentials.ts';
import { randomName } from './random-name.ts';

export interface HttpInput {
  /** Port or URL of the local service. */
  readonly target: string;
  /** Agent options by key, without `local`. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Environment;
  readonly file: string | undefined;
  /** Where `culvert up` keeps its state, when not in the usual place. */
  readonly stateDir: string | undefined;
}

/**
 * The agent configuration of `culvert http`. Without a server and token of its own it uses those that `culvert up` left,
 * and without a subdomain a random one.
 * @throws CulvertError `invalid_config`.
 */
export function httpConfig(input: HttpInput): AgentConfig {
  const service = parseService(undefined, input.target);
  if (service instanceof Refusal) throw new ConfigError([service.text]);
  const { env, file } = input;
  const { TUNNEL_STATE_DIR } = env;
  const { given } = gather(AGENT_SCHEMA, { flags: input.flags, env, file });
  // One of the two alone is not completed from the file: that would send its token to another server.
  const configured = ['server', 'token', 'token-file'].some((key) => given.has(key));
  const fallbacks: Fallback[] = [
    // A fixed metrics port would let only one run at a time.
    { label: 'culvert http', values: { 'metrics-port': 0 } },
    ...(configured ? [] : [upFallback(input.stateDir ?? (TUNNEL_STATE_DIR || defaultStateDir(env)))]),
  ];
  const subdomain = given.has('subdomain') ? {} : { subdomain: randomName() };
  return loadAgentConfig({ flags: { ...input.flags, ...subdomain, local: input.target }, env, file, fallbacks });
}

function upFallback(stateDir: string): Fallback {
  const path = upCredentialsPath(stateDir);
  const credentials = readUpCredentials(stateDir);
  if (credentials === undefined) {
    throw new ConfigError([
      `no server to use: start one with "culvert up" (it leaves its address in ${path}), or give --server and --token-file`,
    ]);
  }
  const { server, token, caCert, serverName } = credentials;
  return { label: path, values: { server, token, 'ca-cert': caCert, 'tls-server-name': serverName } };
}
