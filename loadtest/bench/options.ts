import { resolve } from 'node:path';
import { type Command, CommanderError, InvalidArgumentError } from 'commander';
import { CulvertError } from '../../shared/errors/codes.ts';

/** The checkout that this file belongs to. */
export function repositoryRoot(): string {
  return resolve(import.meta.dirname, '..', '..');
}

/** Parses `process.argv`; `--help` prints and exits. Throws CulvertError `invalid_config` for wrong usage. */
export function parseCommand<T extends object>(command: Command, argv: readonly string[] = process.argv): T {
  command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .allowExcessArguments(false);
  try {
    return command.parse(argv).opts<T>();
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) process.exit(0);
    throw new CulvertError('invalid_config', error.message.replace(/^error: /, ''));
  }
}

/** A parser for an integer within bounds. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Not an integer from ${least} to ${most}.`);
  };
}

/** A parser for a number within bounds. */
export function decimal(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+(\.\d+)?$/.test(text) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`Not a number from ${least} to ${most}.`);
  };
}
