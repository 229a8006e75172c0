import { type AgentConfig, describeConfig } from '../../shared/config/config.ts';
import { createLogger, type Logger } from '../../shared/observability/logger.ts';
import { startMetricsServer } from '../../shared/observability/metrics-server.ts';
import type { RequestInfo } from '../agent/forward/exchange.ts';
import { type AgentHandle, connect } from '../agent/index.ts';
import { AgentMetrics } from '../agent/metrics.ts';
import { agentOptions } from './agent-runner.ts';
import { stopSignal } from './stop-signal.ts';

/** `culvert agent`: serves its tunnels until a signal, or an error that no retry can mend, ends it. */
export async function run(config: AgentConfig): Promise<void> {
  const log = createLogger({ level: config.logLevel, name: 'agent' });
  log.debug(describeConfig(config), 'configuration');
  const metrics = new AgentMetrics();
  let agent: AgentHandle | undefined;
  const server =
    config.metricsPort === 0
      ? undefined
      : await startMetricsServer({ host: '', port: config.metricsPort }, metrics.registry, () => isServing(agent));

  try {
    agent = connect(
      agentOptions(config, (info) => {
        metrics.onRequest(info);
        logRequest(log, config.logRequests, info);
      }),
    );
    metrics.watch(agent);
    logEvents(log, agent);
    await Promise.race([stopSignal(), agent.closed]);
    await agent.close();
    const error = await agent.closed;
    if (error !== undefined) throw error;
  } finally {
    await server?.close();
  }
}

/** Whether a visitor can reach a service now. A tunnel that was refused is the others' business to tell of, not a reason. */
function isServing(agent: AgentHandle | undefined): boolean {
  return agent !== undefined && agent.publicUrls.size > 0 && agent.sessions.some(({ state }) => state === 'online');
}

/** Writes what happens to the sessions and tunnels. */
export function logEvents(log: Logger, agent: AgentHandle): void {
  agent.on('connected', (session) => log.info(session, 'connected'));
  agent.on('disconnected', ({ slot, error, retryIn }) =>
    log.warn({ slot, code: error.code, retryIn: Math.round(retryIn) }, error.message),
  );
  agent.on('tunnel', (tunnel) => log.info(tunnel, `${tunnel.publicUrl} is served`));
  agent.on('refused', ({ name, error }) => log.error({ tunnel: name, code: error.code }, error.message));
  agent.on('health', ({ name, healthy, why }) =>
    log[healthy ? 'info' : 'warn'](
      { tunnel: name, healthy },
      `the local service is ${healthy ? 'healthy again' : 'unhealthy'}: ${why}`,
    ),
  );
}

function logRequest(log: Logger, mode: 'off' | 'errors' | 'all', info: RequestInfo): void {
  if (mode === 'off') return;
  const failed = info.status >= 500 || (info.code !== undefined && info.code !== 'canceled');
  if (!failed && mode === 'errors') return;
  const { tunnel, method, target, status, code, ms, bytesIn, bytesOut } = info;
  // The query may hold secrets.
  const path = target.split('?', 1)[0];
  log[failed ? 'warn' : 'info'](
    { tunnel, method, path, status, code, ms: Math.round(ms * 10) / 10, bytesIn, bytesOut },
    'request',
  );
}
