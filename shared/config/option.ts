import { z } from 'zod';

/**
 * One option is described once, here: its value type, default and help. Flags, environment names, file keys, validation,
 * `--help`, REFERENCE.md and the example files derive from it.
 */

/** How a value is written in a flag, an environment variable or a file, and what it becomes. */
export interface ValueType<T> {
  /** Stands for the value in help, such as `<duration>`; undefined for a switch that takes no value. */
  readonly placeholder: string | undefined;
  /** What is accepted, as a noun phrase: `a duration from 1s to 5m`. */
  readonly expects: string;
  /** True when a repeated flag adds to the list instead of replacing the value. */
  readonly list: boolean;
  /** Decodes text, or a file's number, boolean, list or map; encodes back to the written form. */
  readonly schema: z.ZodType<T, unknown>;
}

/** Why a raw value was refused. The text follows the option's name and a colon. */
export class Refusal {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

interface ValueTypeSpec<T> {
  readonly placeholder?: string;
  readonly expects: string;
  readonly list?: boolean;
  decode(raw: unknown): T | Refusal;
  encode(value: T): unknown;
}

export function valueType<T>(spec: ValueTypeSpec<T>): ValueType<T> {
  return {
    placeholder: spec.placeholder,
    expects: spec.expects,
    list: spec.list ?? false,
    schema: z.codec(z.unknown(), z.custom<T>(), {
      decode: (raw, context) => {
        const value = spec.decode(raw);
        if (!(value instanceof Refusal)) return value;
        context.issues.push({ code: 'custom', input: undefined, message: value.text });
        return z.NEVER;
      },
      encode: (value) => spec.encode(value),
    }),
  };
}

/** A default that depends on the machine rather than on the schema. */
export interface ComputedDefault {
  /** How the reference page states it. */
  readonly text: string;
  readonly compute: (env: Environment) => string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Option<T> {
  readonly type: ValueType<T>;
  readonly help: string;
  /** In written form, so that the help shows exactly what a user would type. */
  readonly default: string | ComputedDefault | undefined;
  /** For an option without a default: what happens then, for help and the reference page. */
  readonly unset: string | undefined;
  readonly required: boolean;
  /** Never shown in logs, errors or `config check`. */
  readonly secret: boolean;
  /** Heading in help and the reference page. */
  readonly group: string;
}

interface OptionSpec<T> {
  readonly type: ValueType<T>;
  readonly help: string;
  readonly unset?: string;
  readonly secret?: boolean;
}

/** With a default or `required` the resolved value is always there; without either it may be undefined. */
export function option<T>(spec: OptionSpec<T> & { default: string | ComputedDefault }): Option<T>;
export function option<T>(spec: OptionSpec<T> & { required: true }): Option<T>;
export function option<T>(spec: OptionSpec<T>): Option<T | undefined>;
export function option<T>(
  spec: OptionSpec<T> & { default?: string | ComputedDefault; required?: boolean },
): Option<T> | Option<T | undefined> {
  return {
    type: spec.type,
    help: spec.help,
    default: spec.default,
    unset: spec.unset,
    required: spec.required ?? false,
    secret: spec.secret ?? false,
    group: 'Options',
  };
}

export type OptionMap = Readonly<Record<string, Option<unknown>>>;

/** Puts options under one heading. */
export function group<S extends OptionMap>(heading: string, options: S): S {
  const grouped = Object.entries(options).map(([key, each]) => [key, { ...each, group: heading }]);
  // Same keys and value types as `options`; only the heading differs, which fromEntries cannot express.
  return Object.fromEntries(grouped) as S;
}

/** The default as help and the reference page state it; undefined when there is nothing to state. */
export function defaultText(option: Option<unknown>): string | undefined {
  return typeof option.default === 'object' ? option.default.text : option.default;
}
