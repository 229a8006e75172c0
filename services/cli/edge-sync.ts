import { describeConfig, type EdgeSyncConfig } from '../../shared/config/config.ts';
import { createLogger } from '../../shared/observability/logger.ts';
import { EdgeSync } from '../edge-sync/edge-sync.ts';
import { stopSignal } from './stop-signal.ts';

/** `culvert edge-sync`: keeps HAProxy in step until a signal ends it. */
export async function run(config: EdgeSyncConfig): Promise<void> {
  const log = createLogger({ level: config.logLevel, name: 'edge-sync' });
  log.debug(describeConfig(config), 'configuration');
  const sync = new EdgeSync(config, log);
  await sync.start();
  log.info({ metricsPort: sync.metricsPort, haproxies: config.haproxy.length }, 'edge-sync is started');
  await stopSignal();
  await sync.stop();
}
