import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { type Checkout, plainEnvironment } from './checkout.ts';
import { SMALL_PATH } from './content.ts';
import { answers, type Endpoint, freePort } from './endpoint.ts';
import type { ProcessGroup, Service } from './processes.ts';

/** Time for the core, and then for the tunnel, to be ready, in milliseconds. tsx compiles while it loads. */
const START_MS = 30_000;
const NAME = 'bench';

const ReadyLine = z.object({ msg: z.literal('node is ready'), publicPort: z.number(), agentPort: z.number() });
const AuthorityLine = z.object({ ca: z.string() });

export type Role = 'core' | 'agent';

/** A core and an agent of one checkout, in front of one local service. */
export interface Tunnel {
  readonly endpoint: Endpoint;
  readonly services: Readonly<Record<Role, Service>>;
}

export interface TunnelOptions {
  readonly checkout: Checkout;
  /** Folder of its own for keys, state and logs. */
  readonly dir: string;
  /** Port of the service on 127.0.0.1. */
  readonly servicePort: number;
  /** More arguments for Node, for one of the two processes. */
  readonly nodeArgs?: Readonly<Partial<Record<Role, readonly string[]>>>;
}

/** Resolves when a request passes. All options but addresses, keys and folders are at their defaults. */
export async function startTunnel(processes: ProcessGroup, options: TunnelOptions): Promise<Tunnel> {
  const { checkout, dir } = options;
  mkdirSync(dir);
  const secretFile = join(dir, 'secret');
  writeFileSync(secretFile, randomBytes(48).toString('base64'), { mode: 0o600 });
  const start = async (role: Role, args: readonly string[]) => {
    const nodeArgs = [...(options.nodeArgs?.[role] ?? []), ...checkout.nodeArgs, ...args];
    const place = { cwd: checkout.dir, env: plainEnvironment(process.env), logFile: join(dir, `${role}.log`) };
    return await processes.start(role, process.execPath, nodeArgs, place);
  };

  const addresses = ['public', 'agent', 'dashboard', 'metrics'].flatMap((name) => [`--${name}-addr`, '127.0.0.1:0']);
  const keys = ['--jwt-secret-file', secretFile, '--state-dir', join(dir, 'state')];
  const core = await start('core', ['server', ...addresses, ...keys]);
  const ready = await processes.waitFor(core, 'line that says it is ready', START_MS, () => find(core, ReadyLine));
  const { ca } = await processes.waitFor(core, 'line with its authority', START_MS, () => find(core, AuthorityLine));

  const tokenFile = join(dir, 'token');
  const tokenArgs = ['token', 'create', '--secret-file', secretFile, '--agent-id', NAME, '--account-id', NAME];
  const command = [...checkout.nodeArgs, ...tokenArgs];
  const token = await processes.capture(process.execPath, command, START_MS, checkout.dir);
  writeFileSync(tokenFile, token, { mode: 0o600 });
  const server = ['--server', `127.0.0.1:${ready.agentPort}`, '--ca-cert', ca, '--token-file', tokenFile];
  const local = ['--local', `${NAME}=http://127.0.0.1:${options.servicePort}`];
  const metrics = ['--metrics-port', String(await freePort())];
  const agent = await start('agent', ['agent', ...server, ...local, ...metrics]);

  const endpoint = { port: ready.publicPort, host: `${NAME}.localhost:${ready.publicPort}` };
  await processes.waitFor(agent, 'answer through the tunnel', START_MS, () => answers(endpoint, SMALL_PATH));
  return { endpoint, services: { core, agent } };
}

/** The first line of a service's log that has this shape. */
function find<T>(service: Service, shape: z.ZodType<T>): T | undefined {
  for (const line of service.output().split('\n')) {
    const { data } = shape.safeParse(jsonOrNull(line));
    if (data !== undefined) return data;
  }
  return undefined;
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
