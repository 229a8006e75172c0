import { CulvertError } from '../../shared/errors/codes.ts';
import type { Endpoint } from './endpoint.ts';
import type { ProcessGroup } from './processes.ts';

/** Longest time for one transfer, in seconds: 1 GB at 10 MB/s and some more. */
const MAX_SECONDS = 120;

export interface Transfer {
  readonly bytes: number;
  readonly seconds: number;
}

/** Fetches a file and drops it. Throws CulvertError `internal_error` when it fails or another length comes, `timeout`. */
export async function fetchTimed(processes: ProcessGroup, target: Endpoint, path: string, bytes: number) {
  const format = '%{http_code} %{size_download} %{time_total}';
  const args = ['--output', '/dev/null', '--write-out', format, ...request(target, path)];
  const transfer = parseTransfer(await processes.capture('curl', args, MAX_SECONDS * 1000 + 1000));
  if (transfer.bytes === bytes) return transfer;
  throw new CulvertError(
    'internal_error',
    `${target.host} sent ${transfer.bytes} bytes of ${path} instead of ${bytes}`,
  );
}

/** SHA-256 of what is served, in hex. Throws CulvertError `internal_error` when the transfer fails, `timeout`. */
export async function fetchDigest(processes: ProcessGroup, target: Endpoint, path: string): Promise<string> {
  return await processes.digest('curl', request(target, path), MAX_SECONDS * 1000 + 1000);
}

/** Reads `http_code size_download time_total`. Throws CulvertError `internal_error` unless the status was 200. */
export function parseTransfer(text: string): Transfer {
  const [status, bytes, seconds] = text.trim().split(' ').map(Number);
  if (status !== 200 || bytes === undefined || seconds === undefined || !(seconds > 0)) {
    throw new CulvertError('internal_error', `curl reports a failed transfer: ${text.trim()}`);
  }
  return { bytes, seconds };
}

function request(target: Endpoint, path: string): string[] {
  const url = `http://127.0.0.1:${target.port}${path}`;
  const limits = ['--max-time', String(MAX_SECONDS), '--noproxy', '*'];
  return ['--silent', '--show-error', '--fail', ...limits, '--header', `Host: ${target.host}`, url];
}
