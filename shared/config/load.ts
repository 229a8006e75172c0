import { CulvertError } from '../errors/codes.ts';
import { readConfigFile } from './file.ts';
import { nearest } from './nearest.ts';
import type { Environment, OptionMap } from './option.ts';
import { camelCase, envName, type Schema, type ValuesOf } from './schema.ts';

/** Everything that is wrong with a configuration, one line each. */
export class ConfigError extends CulvertError {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    const first = problems[0] ?? 'the configuration is wrong';
    super('invalid_config', problems.length > 1 ? `${first} (and ${problems.length - 1} more)` : first);
    this.problems = problems;
  }
}

/** Values that stand behind the file and before the defaults, such as what `culvert up` left for `culvert http`. */
export interface Fallback {
  /** Where they come from, for messages. */
  readonly label: string;
  /** By option key. */
  readonly values: Readonly<Record<string, unknown>>;
}

export interface ConfigSources {
  /** By option key (`max-connections`): text, or a boolean for a switch. */
  readonly flags?: Readonly<Record<string, unknown>>;
  readonly env?: Environment;
  /** Path of a JSON or YAML file; when undefined, the environment variable `<prefix>CONFIG` names it. */
  readonly file?: string | undefined;
  readonly fallbacks?: readonly Fallback[];
}

interface Given {
  readonly raw: unknown;
  /** The option as the user wrote it. */
  readonly label: string;
}

interface Gathered {
  readonly given: ReadonlyMap<string, Given>;
  readonly problems: readonly string[];
}

/**
 * The values of one schema: flags win over the environment, over the file, over fallbacks, over defaults.
 * An empty environment variable counts as absent.
 * @throws ConfigError `invalid_config` with every problem found.
 */
export function load<S extends OptionMap>(schema: Schema<S>, sources: ConfigSources): ValuesOf<S> {
  const { given, problems: found } = gather(schema, sources);
  const problems = [...found];
  const values: Record<string, unknown> = {};
  const wrong = new Set<string>();
  const env = sources.env ?? {};

  for (const [key, option] of Object.entries(schema.options)) {
    const standard = typeof option.default === 'object' ? option.default.compute(env) : option.default;
    const source = given.get(key) ?? { raw: standard, label: `${key} (default)` };
    if (source.raw === undefined) {
      values[camelCase(key)] = undefined;
      if (!option.required) continue;
      wrong.add(key);
      problems.push(`${key} is missing: ${howToGive(schema.envPrefix, key, option.type.placeholder)}`);
      continue;
    }
    const result = option.type.schema.safeDecode(source.raw);
    if (result.success) {
      values[camelCase(key)] = result.data;
      continue;
    }
    wrong.add(key);
    problems.push(`${source.label}: ${result.error.issues[0]?.message ?? `must be ${option.type.expects}`}`);
  }

  const name = (key: string) => given.get(key)?.label ?? (schema.envPrefix === undefined ? `--${key}` : key);
  for (const check of schema.checks) {
    if (check.keys.some((key) => wrong.has(key))) continue;
    // Each option that is not in `wrong` was decoded by its own type above, and the check reads no other.
    const problem = check.problem(values as ValuesOf<S>, name);
    if (problem !== undefined) problems.push(problem);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  // No problem: every option has the value that its type decoded, or undefined where it may be absent.
  return values as ValuesOf<S>;
}

/** The raw value of each option that flags, environment, file or fallbacks give, before validation. */
export function gather<S extends OptionMap>(schema: Schema<S>, sources: ConfigSources): Gathered {
  const given = new Map<string, Given>();
  const problems: string[] = [];
  const keys = Object.keys(schema.options);
  const take = (key: string, raw: unknown, label: string) => {
    if (raw !== undefined && !given.has(key)) given.set(key, { raw, label });
  };
  const refuse = (written: string, candidates: readonly string[], what: string) => {
    const guess = nearest(written, candidates);
    problems.push(
      `${what} is not known${guess === undefined ? `; see the options of ${schema.service}` : `; did you mean ${guess}?`}`,
    );
  };

  for (const [key, raw] of Object.entries(sources.flags ?? {})) {
    if (Object.hasOwn(schema.options, key)) take(key, raw, `--${key}`);
    else refuse(key, keys, `--${key}`);
  }

  let file = sources.file;
  const prefix = schema.envPrefix;
  if (prefix !== undefined) {
    const names = new Map(keys.map((key) => [envName(prefix, key), key]));
    // The name made without thought, such as AGENT_AGENT_ID, works as well.
    const literal = new Map(keys.map((key) => [prefix + key.replaceAll('-', '_').toUpperCase(), key]));
    const configName = `${prefix}CONFIG`;
    for (const [variable, value] of Object.entries(sources.env ?? {})) {
      if (!variable.startsWith(prefix) || value === undefined || value === '') continue;
      const key = names.get(variable) ?? literal.get(variable);
      if (key !== undefined) take(key, value, variable);
      else if (variable === configName) file ??= value;
      else if (!isServiceLink(variable, value)) {
        refuse(variable, [...names.keys(), configName], `the environment variable ${variable}`);
      }
    }
  }

  if (file !== undefined) {
    const content = readConfigFile(file);
    if (typeof content === 'string') problems.push(content);
    else {
      for (const [key, raw] of content) {
        if (!Object.hasOwn(schema.options, key)) refuse(key, keys, `${key} in ${file}`);
        else if (raw === null) problems.push(`${key} in ${file}: has no value; give one or remove the line`);
        else take(key, raw, `${key} in ${file}`);
      }
    }
  }
  for (const { label, values } of sources.fallbacks ?? []) {
    for (const [key, raw] of Object.entries(values)) take(key, raw, `${key} in ${label}`);
  }
  return { given, problems };
}

function howToGive(prefix: string | undefined, key: string, placeholder: string | undefined): string {
  const flag = `give --${key} ${placeholder ?? ''}`.trim();
  return prefix === undefined ? flag : `${flag}, ${envName(prefix, key)}, or ${key} in a configuration file`;
}

/**
 * Kubernetes gives every pod variables for each Service of its namespace ("Environment variables" in its Service
 * documentation). A Service named `tunnel-core` or `agent` must not stop the process.
 */
function isServiceLink(variable: string, value: string): boolean {
  return (
    /_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$/.test(variable) || /^(tcp|udp|sctp):\/\//.test(value)
  );
}
