import { type Command, Option as CommandOption } from 'commander';
import { defaultText, type Option, type OptionMap } from '../../shared/config/option.ts';
import { camelCase, envName, type Schema } from '../../shared/config/schema.ts';

interface Variation<Key extends string> {
  /** Options that the command does not have. */
  readonly without?: readonly Key[];
  /** What its help says of defaults that differ from the schema's. */
  readonly defaults?: Readonly<Partial<Record<Key, string>>>;
}

/** Adds a flag for each option of the schema. Commander checks no value; the schema does. */
export function addOptions<S extends OptionMap>(
  command: Command,
  schema: Schema<S>,
  variation: Variation<keyof S & string> = {},
): Command {
  const standards = new Map<string, string | undefined>(Object.entries(variation.defaults ?? {}));
  for (const [key, option] of Object.entries(schema.options)) {
    if (variation.without?.includes(key)) continue;
    const { placeholder } = option.type;
    const environment = schema.envPrefix === undefined ? undefined : envName(schema.envPrefix, key);
    const help = describe(option, standards.get(key), environment);
    const heading = `${option.group}:`;
    if (placeholder === undefined) {
      const onByDefault = option.default === 'true';
      command.addOption(new CommandOption(`--${key}`, help).helpGroup(heading).hideHelp(onByDefault));
      command.addOption(
        new CommandOption(`--no-${key}`, `Turns off: ${help}`).helpGroup(heading).hideHelp(!onByDefault),
      );
      continue;
    }
    const flag = new CommandOption(`--${key} ${placeholder}`, help).helpGroup(heading);
    if (option.type.list) {
      flag.argParser((value, before) => (typeof before === 'string' ? `${before},${value}` : value));
    }
    command.addOption(flag);
  }
  return command;
}

/** The flags that the user gave, by option key. */
export function givenFlags<S extends OptionMap>(command: Command, schema: Schema<S>): Record<string, unknown> {
  const flags: Record<string, unknown> = {};
  for (const key of Object.keys(schema.options)) {
    const name = camelCase(key);
    if (command.getOptionValueSource(name) === 'cli') flags[key] = command.getOptionValue(name) as unknown;
  }
  return flags;
}

function describe(option: Option<unknown>, standard: string | undefined, environment: string | undefined): string {
  const fallback = standard ?? defaultText(option) ?? option.unset;
  const notes = [
    ...(fallback !== undefined ? [`default: ${fallback}`] : option.required ? ['required'] : []),
    ...(environment === undefined ? [] : [`env: ${environment}`]),
  ];
  return notes.length === 0 ? option.help : `${option.help} (${notes.join('; ')})`;
}
