import type { Option, OptionMap } from './option.ts';

/** `max-connections` → `maxConnections`. */
export type CamelCase<K extends string> = K extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : K;

/** The resolved values of a schema's options, by camel-case name. */
export type ValuesOf<S extends OptionMap> = {
  readonly [K in keyof S & string as CamelCase<K>]: S[K] extends Option<infer T> ? T : never;
};

/** Names an option the way the user gave it: `--max-connections`, `TUNNEL_MAX_CONNECTIONS` or `max-connections in FILE`. */
export type NameOf<S extends OptionMap> = (key: keyof S & string) => string;

/** A rule over several options. */
export interface Check<S extends OptionMap> {
  /** The options it reads; it is skipped when one of them is already wrong. */
  readonly keys: readonly (keyof S & string)[];
  /** Undefined when all is well, else one line that names the options and says what to do. */
  readonly problem: (values: ValuesOf<S>, name: NameOf<S>) => string | undefined;
}

export interface Schema<S extends OptionMap> {
  /** As in `culvert config check --service`. */
  readonly service: string;
  /** Environment variables are this and the key in upper snake case; undefined: the environment is not read. */
  readonly envPrefix: string | undefined;
  readonly options: S;
  readonly checks: readonly Check<S>[];
}

export function defineSchema<S extends OptionMap>(schema: Schema<S>): Schema<S> {
  return schema;
}

export function camelCase(key: string): string {
  return key.replace(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

/** `TUNNEL_MAX_CONNECTIONS`; a key that begins with the prefix's own word does not repeat it: `AGENT_ID`. */
export function envName(prefix: string, key: string): string {
  const name = key.replaceAll('-', '_').toUpperCase();
  return name.startsWith(prefix) ? name : prefix + name;
}
