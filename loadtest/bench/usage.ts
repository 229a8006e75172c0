import { readFileSync } from 'node:fs';
import { CulvertError } from '../../shared/errors/codes.ts';

/** Ticks per second in /proc: USER_HZ, which is 100 on every architecture that Node runs on (proc(5), time(7)). */
const TICKS_PER_SECOND = 100;
/** proc_pid_stat(5) numbers its fields from 1: utime is 14 and stime 15; the first after the name is field 3. */
const UTIME = 14 - 3;
const STIME = 15 - 3;

export interface Usage {
  /** User and system time of all threads so far. */
  readonly cpuSeconds: number;
  /** Most memory resident at once so far (VmHWM). */
  readonly peakRssBytes: number;
}

/** What a process has used so far. Throws CulvertError `internal_error` when it is gone. */
export function readUsage(pid: number): Usage {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return { cpuSeconds: parseCpu(stat), peakRssBytes: parsePeakRss(readFileSync(`/proc/${pid}/status`, 'utf8')) };
  } catch (error) {
    throw new CulvertError('internal_error', `process ${pid} ended while it was measured`, { cause: error });
  }
}

/** Seconds of CPU time in the text of /proc/PID/stat. */
export function parseCpu(stat: string): number {
  // The name may hold spaces and parentheses; only what follows its last parenthesis has fields at fixed places.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return numeric(Number(fields[UTIME]) + Number(fields[STIME]), 'CPU time') / TICKS_PER_SECOND;
}

/** Bytes of peak resident memory in the text of /proc/PID/status. */
export function parsePeakRss(status: string): number {
  return numeric(Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]), 'VmHWM') * 1024;
}

function numeric(value: number, what: string): number {
  if (Number.isNaN(value)) throw new CulvertError('internal_error', `/proc has no ${what} for a process`);
  return value;
}
