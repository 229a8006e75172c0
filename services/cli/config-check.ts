import { stringify } from 'yaml';
import { AGENT_SCHEMA } from '../../shared/config/agent-options.ts';
import { describeConfig, loadAgentConfig, loadCoreConfig } from '../../shared/config/config.ts';
import { CORE_SCHEMA } from '../../shared/config/core-options.ts';
import { readConfigFile } from '../../shared/config/file.ts';
import type { Environment } from '../../shared/config/option.ts';

export type CheckedService = 'core' | 'agent';

/**
 * `ok` and the values that the file and the environment come to, as YAML, secrets redacted.
 * @param service when undefined, the one that knows more of the file's keys.
 * @throws ConfigError `invalid_config` with every problem found.
 */
export function checkConfig(file: string, service: CheckedService | undefined, env: Environment): string {
  const sources = { env, file };
  const config = (service ?? serviceOf(file)) === 'core' ? loadCoreConfig(sources) : loadAgentConfig(sources);
  return `ok\n${stringify(describeConfig(config))}`;
}

function serviceOf(file: string): CheckedService {
  const content = readConfigFile(file);
  const keys = typeof content === 'string' ? [] : content.map(([key]) => key);
  const known = (options: object) => keys.filter((key) => Object.hasOwn(options, key)).length;
  return known(AGENT_SCHEMA.options) > known(CORE_SCHEMA.options) ? 'agent' : 'core';
}
