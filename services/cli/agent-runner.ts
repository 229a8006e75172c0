import { readFileSync } from 'node:fs';
import type { AgentConfig } from '../../shared/config/config.ts';
import { valueFor } from '../../shared/config/per-service.ts';
import { CulvertError } from '../../shared/errors/codes.ts';
import type { RequestInfo } from '../agent/forward/exchange.ts';
import type { AgentOptions, TunnelPolicy } from '../agent/index.ts';

/** The library's options for a configuration. A token file is read again for each connection, so that it can be rotated. */
export function agentOptions(config: AgentConfig, onRequest: (info: RequestInfo) => void): AgentOptions {
  const tokenPath = config.tokenFile?.path;
  return {
    server: config.server,
    token: tokenPath === undefined ? config.token : () => readFileSync(tokenPath, 'utf8'),
    agentId: config.agentId,
    tunnels: config.local.map(({ name, url }) => ({ name, url, policy: policyFor(config, name) })),
    tls: config.tls
      ? {
          ca: config.caCert === undefined ? undefined : readText(config.caCert),
          serverName: config.tlsServerName,
          skipVerify: config.tlsSkipVerify,
        }
      : false,
    connections: config.connections,
    reconnectInterval: config.reconnectInterval,
    maxRetries: config.maxRetries,
    requestTimeout: config.requestTimeout,
    hostHeader: config.hostHeader,
    healthCheckPath: config.healthCheckPath,
    healthCheckInterval: config.healthCheckInterval,
    localTlsSkipVerify: config.localTlsSkipVerify,
    onRequest,
  };
}

function policyFor(config: AgentConfig, name: string): TunnelPolicy | undefined {
  const balance = valueFor(config.balance, name);
  return balance === undefined ? undefined : { balance };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new CulvertError('invalid_config', `ca-cert: ${path} cannot be read`, { cause: error });
  }
}
