import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadCoreConfig } from '../../../shared/config/config.ts';
import { createLogger } from '../../../shared/observability/logger.ts';
import { type AgentHandle, type AgentOptions, connect } from '../../agent/index.ts';
import { CoreNode } from '../../core/node.ts';
import { createToken } from '../token.ts';

/** One node and one agent in the process of the test, over real sockets. */

export const SECRET = 'a secret for tests only, long enough for HS256';
export const BASE_DOMAIN = 'localhost';

/** Shared by all that a test file starts, so that the authority of the certificates is made once. */
export const stateDir = mkdtempSync(join(tmpdir(), 'culvert-e2e-'));
process.once('exit', () => rmSync(stateDir, { recursive: true, force: true }));

/** Flags of `culvert server` for a node on free ports of the loopback, with timers for tests. */
export const CORE_FLAGS = {
  'public-addr': '127.0.0.1:0',
  'agent-addr': '127.0.0.1:0',
  'dashboard-addr': '127.0.0.1:0',
  'metrics-addr': '127.0.0.1:0',
  'base-domain': BASE_DOMAIN,
  'jwt-secret': SECRET,
  'state-dir': stateDir,
  'heartbeat-interval': '500ms',
  'heartbeat-timeout': '3s',
} as const;

export interface Claims {
  readonly agentId?: string;
  readonly accountId?: string;
  /** Seconds, at least 1. Default an hour. */
  readonly expires?: number;
  /** Milliseconds since the Unix epoch. Default now. */
  readonly issuedAt?: number;
  readonly secret?: string;
  readonly names?: string;
  readonly maxConnections?: number;
}

export function signToken(claims: Claims = {}): Promise<string> {
  const flags = {
    'agent-id': claims.agentId ?? 'agent-1',
    'account-id': claims.accountId ?? 'account-1',
    expires: `${claims.expires ?? 3600}s`,
    secret: claims.secret ?? SECRET,
    ...(claims.names === undefined ? {} : { names: claims.names }),
    ...(claims.maxConnections === undefined ? {} : { 'max-connections': String(claims.maxConnections) }),
  };
  return createToken(flags, {}, claims.issuedAt);
}

/** @param flags options of the core by key, over CORE_FLAGS */
export async function startCore(flags: Readonly<Record<string, string>> = {}): Promise<CoreNode> {
  const core = new CoreNode(
    loadCoreConfig({ flags: { ...CORE_FLAGS, ...flags } }),
    createLogger({ level: 'silent', name: 'core' }),
  );
  await core.start();
  return core;
}

/** Options of an agent for this node. */
export function agentFor(
  core: CoreNode,
  token: AgentOptions['token'],
  services: Readonly<Record<string, string>>,
): AgentOptions {
  return {
    server: { host: '127.0.0.1', port: core.addresses.agentPort },
    tls: { ca: readFileSync(core.caFile ?? '', 'utf8') },
    token,
    tunnels: Object.entries(services).map(([name, url]) => ({ name, url })),
    connections: 1,
    reconnectInterval: 300,
  };
}

export interface TunnelOptions {
  /** Tunnel name → URL of the local service. */
  readonly services: Readonly<Record<string, string>>;
  readonly coreOptions?: Readonly<Record<string, string>>;
  readonly agentOptions?: Partial<AgentOptions>;
}

export interface Tunnel {
  readonly publicPort: number;
  readonly core: CoreNode;
  readonly agent: AgentHandle;
  /** `http://<name>.localhost:<port>`. */
  url(name: string): string;
  close(): Promise<void>;
}

/** Resolves when every tunnel answers. */
export async function startTunnel(options: TunnelOptions): Promise<Tunnel> {
  const core = await startCore(options.coreOptions);
  const agent = connect({ ...agentFor(core, await signToken(), options.services), ...options.agentOptions });
  const close = async (): Promise<void> => {
    await agent.close(0);
    await core.stop(0);
  };
  try {
    await agent.ready;
  } catch (error) {
    await close();
    throw error;
  }
  const { publicPort } = core.addresses;
  return { publicPort, core, agent, url: (name) => `http://${name}.${BASE_DOMAIN}:${publicPort}`, close };
}
