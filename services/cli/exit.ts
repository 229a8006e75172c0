import { CommanderError } from 'commander';
import { ConfigError } from '../../shared/config/load.ts';
import { CulvertError, type ErrorCode } from '../../shared/errors/codes.ts';

/**
 * Exit codes of `culvert`. 2 for wrong usage is what shells and getopt use; a supervisor need not restart after 2 or 3,
 * since the same start would fail again.
 */
export const EXIT = {
  /** Done as asked. */
  ok: 0,
  /** It failed while running: a port in use, a core that cannot be reached. Trying again may help. */
  failure: 1,
  /** A wrong command, option, environment variable or configuration file. */
  usage: 2,
  /** The core refused the token or what it asks for. */
  rejected: 3,
} as const;

/** 128 and the signal's number, as shells report it. */
const SIGNAL_EXIT = { SIGINT: 130, SIGTERM: 143 } as const;

const REJECTED: ReadonlySet<ErrorCode> = new Set([
  'invalid_token',
  'forbidden',
  'tunnel_taken',
  'invalid_name',
  'unsupported_protocol',
]);

export function exitCodeFor(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (!(error instanceof CulvertError)) return EXIT.failure;
  if (error.code === 'invalid_config') return isUnavailable(error.cause) ? EXIT.failure : EXIT.usage;
  return REJECTED.has(error.code) ? EXIT.rejected : EXIT.failure;
}

/** The address is as it should be, but another process has it now, or its interface is not up yet. */
function isUnavailable(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && (cause.code === 'EADDRINUSE' || cause.code === 'EADDRNOTAVAIL');
}

/** What to print for an error: `culvert: <message> (<code>)`, one line for each thing that is wrong. */
export function errorLines(error: unknown): string[] {
  if (error instanceof ConfigError) return error.problems.map((problem) => line(problem, error.code));
  if (error instanceof CulvertError) return [line(error.message, error.code)];
  // Commander has printed help and version itself.
  if (error instanceof CommanderError) return isOutput(error) ? [] : [line(usageMessage(error), 'invalid_config')];
  return [line(error instanceof Error ? error.message : String(error), 'internal_error')];
}

/**
 * Runs a service until it ends. The service stops itself on SIGINT and SIGTERM; the result is then the signal's exit code.
 * A second signal, or one that nothing else handles, ends the process at once.
 */
export async function exitCodeOf(run: () => Promise<void>): Promise<number> {
  let received: number | undefined;
  const onSignal = (signal: keyof typeof SIGNAL_EXIT) => {
    if (received !== undefined || process.listenerCount(signal) <= 1) process.exit(SIGNAL_EXIT[signal]);
    received = SIGNAL_EXIT[signal];
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    await run();
    return received ?? EXIT.ok;
  } finally {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

function isOutput(error: CommanderError): boolean {
  return error.exitCode === 0 || error.code === 'commander.help';
}

function usageMessage(error: CommanderError): string {
  return error.message.replace(/^error: /, '').replace(/\n\(Did you mean (.*)\)$/, '; did you mean $1');
}

function line(message: string, code: ErrorCode): string {
  // Control characters (C0, DEL, C1) would break the line or reach the terminal as commands.
  return `culvert: ${message.replace(/\p{Cc}+/gu, ' ').trim()} (${code})`;
}
