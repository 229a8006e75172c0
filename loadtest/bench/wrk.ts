import { CulvertError } from '../../shared/errors/codes.ts';
import type { Endpoint } from './endpoint.ts';
import type { ProcessGroup } from './processes.ts';

/** Open connections. */
export const CONNECTIONS = 64;
/** One thread drives far more than a tunnel serves, and leaves the cores to what is measured. */
const THREADS = 1;
/** How long wrk may take beyond its duration, in milliseconds: to connect and to print. */
const GRACE_MS = 15_000;

export interface WrkResult {
  readonly requests: number;
  readonly requestsPerSecond: number;
  /** Milliseconds. */
  readonly p50: number;
  /** Milliseconds. */
  readonly p99: number;
  /** Requests that failed: socket errors, timeouts, and answers of 400 and above. */
  readonly errors: number;
}

/** Runs wrk for `seconds`. Throws CulvertError `internal_error` when it fails or prints something unknown, `timeout`. */
export async function runWrk(processes: ProcessGroup, target: Endpoint, path: string, seconds: number) {
  const args = [`-t${THREADS}`, `-c${CONNECTIONS}`, `-d${seconds}s`, '--latency'];
  args.push('-H', `Host: ${target.host}`, `http://127.0.0.1:${target.port}${path}`);
  return parseWrk(await processes.capture('wrk', args, seconds * 1000 + GRACE_MS));
}

/** Reads what `wrk --latency` prints. Throws CulvertError `internal_error` when a number is missing. */
export function parseWrk(text: string): WrkResult {
  const socketErrors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text);
  const statusErrors = /Non-2xx or 3xx responses: (\d+)/.exec(text);
  const errors = [...(socketErrors ?? []).slice(1), ...(statusErrors ?? []).slice(1)].map(Number);
  return {
    requests: Number(field(text, /^\s*(\d+) requests in /m)),
    requestsPerSecond: Number(field(text, /^Requests\/sec:\s+([\d.]+)$/m)),
    p50: milliseconds(field(text, /^\s*50%\s+(\S+)$/m)),
    p99: milliseconds(field(text, /^\s*99%\s+(\S+)$/m)),
    errors: errors.reduce((sum, count) => sum + count, 0),
  };
}

const UNIT_MS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

function milliseconds(text: string): number {
  const match = /^([\d.]+)([a-z]+)$/.exec(text);
  const unit = UNIT_MS[match?.[2] ?? ''];
  if (unit === undefined) throw unreadable(text);
  return Number(match?.[1]) * unit;
}

function field(text: string, pattern: RegExp): string {
  const value = pattern.exec(text)?.[1];
  if (value === undefined) throw unreadable(text);
  return value;
}

function unreadable(text: string): CulvertError {
  return new CulvertError('internal_error', `wrk printed something unknown: ${text.trim().slice(0, 500)}`);
}
