import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { CulvertError } from '../errors/codes.ts';

/** What `culvert up` leaves for `culvert http` and `culvert status` on the same machine: how to reach it, and tokens for it. */
const UpCredentials = z.object({
  /** `host:port` of the agent listener. */
  server: z.string().min(1),
  token: z.string().min(1),
  /** Path of a PEM file that verifies the listener's certificate. */
  caCert: z.string().min(1).optional(),
  /** The name to check the certificate against, where it is not the host of `server`. */
  serverName: z.string().min(1).optional(),
  /** Template of the tunnels' URLs, as in CoreConfig. */
  publicUrl: z.string().min(1),
  /** The API, and an administrator's token for it. */
  api: z.object({ url: z.string().min(1), token: z.string().min(1) }).optional(),
});

export type UpCredentials = z.infer<typeof UpCredentials>;

export function upCredentialsPath(stateDir: string): string {
  return join(stateDir, 'up.json');
}

/** Writes the file in one step, readable by its owner only. Creates the directory. */
export function writeUpCredentials(stateDir: string, credentials: UpCredentials): void {
  const path = upCredentialsPath(stateDir);
  const fresh = `${path}.${process.pid}`;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  writeFileSync(fresh, `${JSON.stringify(credentials, null, 2)}\n`, { mode: 0o600 });
  renameSync(fresh, path);
}

/**
 * @returns undefined when there is no file.
 * @throws CulvertError `invalid_config` when there is one that cannot be used.
 */
export function readUpCredentials(stateDir: string): UpCredentials | undefined {
  const path = upCredentialsPath(stateDir);
  try {
    return UpCredentials.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new CulvertError('invalid_config', `${path} cannot be used: start "culvert up" again to renew it`, {
      cause: error,
    });
  }
}
