#!/usr/bin/env node
import { EXIT, errorLines, exitCodeFor, exitCodeOf } from './exit.ts';
import { buildProgram, type CommandActions } from './program.ts';

/** Time for what is left open to close after a command has ended. */
const LINGER_MS = 2000;

let exitCode = 0;

// Imported when called: `culvert token create` must not load a web server.
const actions: CommandActions = {
  up: (input) => service(async () => (await import('./up.ts')).run(input)),
  server: (config) => service(async () => (await import('./server.ts')).run(config)),
  agent: (config) => service(async () => (await import('./agent.ts')).run(config)),
  edgeSync: (config) => service(async () => (await import('./edge-sync.ts')).run(config)),
  http: (config, ui) => service(async () => (await import('./http.ts')).run(config, ui)),
  demo: (address) => service(async () => (await import('./demo.ts')).run(address)),
};

// A reader that went away, as in `culvert token create | true`, is no fault to report.
process.stdout.on('error', () => process.exit(exitCode));
// A fault that nothing caught leaves the process in a state that nobody knows: one line, and out.
process.on('uncaughtException', (error) => {
  report(error);
  process.exit(exitCode);
});

try {
  const program = buildProgram(actions, {
    env: process.env,
    isTerminal: process.stdout.isTTY === true,
    columns: process.stdout.columns,
    write: (text) => void process.stdout.write(text),
    writeError: (text) => void process.stderr.write(text),
  });
  await program.parseAsync(process.argv);
} catch (error) {
  report(error);
}

process.exitCode = exitCode;
setTimeout(() => process.exit(), LINGER_MS).unref();

async function service(run: () => Promise<void>): Promise<void> {
  exitCode = await exitCodeOf(run);
}

function report(error: unknown): void {
  exitCode = exitCodeFor(error);
  for (const line of errorLines(error)) process.stderr.write(`${line}\n`);
  if (wantsStack() && error instanceof Error && exitCode !== EXIT.usage) process.stderr.write(`${error.stack ?? ''}\n`);
}

function wantsStack(): boolean {
  const flag = /(?:^|\s)--log-level[=\s](debug|trace)(?:\s|$)/.test(process.argv.slice(2).join(' '));
  const { TUNNEL_LOG_LEVEL, AGENT_LOG_LEVEL, EDGE_LOG_LEVEL } = process.env;
  return (
    flag || [TUNNEL_LOG_LEVEL, AGENT_LOG_LEVEL, EDGE_LOG_LEVEL].some((level) => level === 'debug' || level === 'trace')
  );
}
