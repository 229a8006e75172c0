import { type DestinationStream, destination, type Logger, pino, stdSerializers } from 'pino';
import { redactSecrets } from './redact.ts';

export type { Logger } from 'pino';

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

export interface LoggerOptions {
  /** Least severe lines to write. Default `info`. */
  readonly level?: LogLevel;
  /** The service: `core`, `agent`, … */
  readonly name: string;
  readonly nodeId?: string;
  /** Takes each line. Default standard output. */
  readonly destination?: DestinationStream;
}

/** Bytes of lines that wait for a slow reader of standard output; what comes beyond is dropped and counted. */
export const MAX_BUFFERED_LOG_BYTES = 8 * 1024 * 1024;

/** Bindings of child loggers pass no formatter, so their secrets are named here. Paths without wildcards cost 70 ns a line. */
const BINDING_PATHS = ['token', 'secret', 'password', 'authorization', 'cookie', 'jwtSecret', 'clusterSecret'];

/**
 * Logs JSON, one line for each event, without secrets: values under names that end in token, secret, password,
 * authorization or cookie are replaced, in nested objects and flat header lists too. Message texts are not searched.
 */
export function createLogger(options: LoggerOptions): Logger {
  const { level = 'info', name, nodeId } = options;
  return pino(
    {
      level,
      base: { name, ...(nodeId === undefined ? {} : { nodeId }), pid: process.pid },
      timestamp: isoTime,
      formatters: { level: (label) => ({ level: label }), log: redactSecrets },
      redact: { paths: BINDING_PATHS, censor: '[redacted]' },
      serializers: { err: stdSerializers.err, error: stdSerializers.err },
    },
    options.destination ?? standardOutput(name),
  );
}

let second = -1;
let untilSecond = '';

/** RFC 3339 to the millisecond. Only the part after the second is made for each line: all of it costs 700 ns. */
function isoTime(): string {
  const now = Date.now();
  if (Math.floor(now / 1000) !== second) {
    second = Math.floor(now / 1000);
    untilSecond = new Date(now).toISOString().slice(0, 20);
  }
  return `,"time":"${untilSecond}${String(now % 1000).padStart(3, '0')}Z"`;
}

/**
 * Writes without waiting, so that a slow reader of the log cannot stall the event loop, and flushes when the process ends.
 * No worker thread: it would cost each start 50 ms and lose the last lines of a crash.
 */
function standardOutput(name: string): DestinationStream {
  const stream = destination({ dest: 1, sync: false, maxLength: MAX_BUFFERED_LOG_BYTES });
  let dropped = 0;
  stream.on('drop', () => {
    dropped += 1;
  });
  stream.on('drain', () => {
    if (dropped === 0) return;
    const time = new Date().toISOString();
    const line = {
      level: 'warn',
      time,
      name,
      dropped,
      msg: 'log lines were dropped: standard output is read too slowly',
    };
    dropped = 0;
    stream.write(`${JSON.stringify(line)}\n`);
  });
  return stream;
}
