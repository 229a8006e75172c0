import { stringify } from 'yaml';
import { AGENT_SCHEMA } from '../../shared/config/agent-options.ts';
import { describeConfig, loadAgentConfig, loadCoreConfig, loadEdgeSyncConfig } from '../../shared/config/config.ts';
import { CORE_SCHEMA } from '../../shared/config/core-options.ts';
import { EDGE_SYNC_SCHEMA } from '../../shared/config/edge-sync-options.ts';
import { readConfigFile } from '../../shared/config/file.ts';
import type { Environment } from '../../shared/config/option.ts';

const SERVICES = {
  core: { options: CORE_SCHEMA.options, load: loadCoreConfig },
  agent: { options: AGENT_SCHEMA.options, load: loadAgentConfig },
  'edge-sync': { options: EDGE_SYNC_SCHEMA.options, load: loadEdgeSyncConfig },
};
export type CheckedService = keyof typeof SERVICES;
export const CHECKED_SERVICES = Object.keys(SERVICES) as CheckedService[];

/**
 * `ok` and the values that the file and the environment come to, as YAML, secrets redacted.
 * @param service when undefined, the one that knows most of the file's keys.
 * @throws ConfigError `invalid_config` with every problem found.
 */
export function checkConfig(file: string, service: CheckedService | undefined, env: Environment): string {
  const config = SERVICES[service ?? serviceOf(file)].load({ env, file });
  return `ok\n${stringify(describeConfig(config))}`;
}

function serviceOf(file: string): CheckedService {
  const content = readConfigFile(file);
  const keys = typeof content === 'string' ? [] : content.map(([key]) => key);
  const known = (service: CheckedService) => keys.filter((key) => Object.hasOwn(SERVICES[service].options, key)).length;
  return CHECKED_SERVICES.reduce((best, each) => (known(each) > known(best) ? each : best));
}
