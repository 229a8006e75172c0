import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type JWTPayload, SignJWT } from 'jose';
import { defaultStateDir } from '../../shared/config/common-options.ts';
import { type CoreConfig, loadCoreConfig } from '../../shared/config/config.ts';
import { formatAddress } from '../../shared/config/net-values.ts';
import { writeUpCredentials } from '../../shared/config/up-credentials.ts';
import { createLogger, type Logger } from '../../shared/observability/logger.ts';
import { API_AUDIENCE } from '../../shared/tokens/claims.ts';
import { type AgentHandle, connect } from '../agent/index.ts';
import { CoreNode } from '../core/node.ts';
import { logEvents } from './agent.ts';
import { startDemoService } from './demo-service.ts';
import type { UpInput } from './program.ts';
import { stopSignal } from './stop-signal.ts';

const DEMO_NAME = 'demo';
const AGENT_ID = 'local';
const ACCOUNT_ID = 'local';
/** Life of the tokens that `up` makes for its own machine; a new one is made at each start. */
const TOKEN_LIFE = '365d';

/** `culvert up`: a node, a demonstration service and an agent for it in one process; nothing has to be set up first. */
export async function run(input: UpInput): Promise<void> {
  const config = await completeConfig(input);
  const log = createLogger({ level: config.logLevel, name: 'up', nodeId: config.nodeId });
  const node = new CoreNode(config, log);
  await node.start();
  const token = await localToken(config, { agent_id: AGENT_ID, account_id: ACCOUNT_ID });
  const host = localHost(config.agentAddr.host);
  const server = formatAddress({ host, port: node.addresses.agentPort });
  writeUpCredentials(config.stateDir, {
    server,
    token,
    publicUrl: config.publicUrl,
    api: {
      url: `http://${formatAddress({ host: localHost(config.dashboardAddr.host), port: node.addresses.dashboardPort })}`,
      token: await localToken(config, { role: 'admin', aud: API_AUDIENCE, sub: 'culvert up' }),
    },
    ...(node.caFile === undefined ? {} : { caCert: node.caFile }),
  });
  const demo = input.demo ? await startDemo(node, host, token, log) : undefined;
  const { dashboardPort, metricsPort, agentPort } = node.addresses;
  process.stderr.write(
    `${[
      '',
      ...(demo === undefined ? [] : [`  Demo       ${node.publicUrl(DEMO_NAME)}`]),
      `  Health     http://localhost:${dashboardPort}/health/ready`,
      `  Metrics    http://localhost:${metricsPort}/metrics`,
      `  Agents     ${formatAddress({ host, port: agentPort })} (TLS)`,
      '',
      '  Serve port 3000:  npm run culvert -- http 3000      Stop:  Ctrl+C',
      '',
    ].join('\n')}\n`,
  );
  if (demo !== undefined) process.stdout.write(`${node.publicUrl(DEMO_NAME)}\n`);
  await stopSignal();
  await demo?.stop();
  await node.stop();
}

/** What the user did not choose is generated, and kept in the state directory for the next start. */
async function completeConfig(input: UpInput): Promise<CoreConfig> {
  const { flags, env, file } = input;
  const { TUNNEL_STATE_DIR } = env;
  const stateDir =
    typeof flags['state-dir'] === 'string' ? flags['state-dir'] : TUNNEL_STATE_DIR || defaultStateDir(env);
  const secretFile = join(stateDir, 'jwt-secret');
  const secret = await readOrCreate(stateDir, secretFile);
  const values = { 'jwt-secret': secret, 'log-level': 'warn' };
  return loadCoreConfig({
    flags,
    env,
    ...(file === undefined ? {} : { file }),
    fallbacks: [{ label: secretFile, values }],
  });
}

async function readOrCreate(directory: string, path: string): Promise<string> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const fresh = randomBytes(48).toString('base64url');
  try {
    // Two starts at once must agree: only one of them can create the file.
    await writeFile(path, `${fresh}\n`, { mode: 0o600, flag: 'wx' });
    return fresh;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return readFileSync(path, 'utf8').trim();
    throw error;
  }
}

async function localToken({ jwtSecret }: CoreConfig, claims: JWTPayload): Promise<string> {
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuedAt()
    .setExpirationTime(TOKEN_LIFE)
    .sign(new TextEncoder().encode(jwtSecret ?? ''));
}

async function startDemo(node: CoreNode, host: string, token: string, log: Logger): Promise<{ stop(): Promise<void> }> {
  const service = await startDemoService();
  const agent: AgentHandle = connect({
    server: { host, port: node.addresses.agentPort },
    token,
    tunnels: [{ name: DEMO_NAME, url: `http://127.0.0.1:${service.port}` }],
    tls: node.caFile === undefined ? { skipVerify: true } : { ca: readFileSync(node.caFile, 'utf8') },
  });
  logEvents(log.child({ part: 'demo agent' }), agent);
  await agent.ready;
  return {
    async stop() {
      await agent.close();
      service.close();
    },
  };
}

/** The host at which this machine reaches what listens there. */
function localHost(host: string): string {
  return ['', '::', '0.0.0.0'].includes(host) ? 'localhost' : host;
}
