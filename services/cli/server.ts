import { type CoreConfig, describeConfig } from '../../shared/config/config.ts';
import { createLogger } from '../../shared/observability/logger.ts';
import { CoreNode } from '../core/node.ts';
import { stopSignal } from './stop-signal.ts';

/** `culvert server`: one core node until a signal ends it. */
export async function run(config: CoreConfig): Promise<void> {
  const log = createLogger({ level: config.logLevel, name: 'core', nodeId: config.nodeId });
  log.debug(describeConfig(config), 'configuration');
  const node = new CoreNode(config, log);
  await node.start();
  await stopSignal();
  await node.stop();
}
