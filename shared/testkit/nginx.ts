import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './eventually.ts';
import { freePort } from './local-service.ts';

export interface Nginx {
  readonly url: string;
  /** Directory that it serves. */
  readonly root: string;
  close(): Promise<void>;
}

/** Debian's place, which is not in everybody's PATH. */
const NGINX = '/usr/sbin/nginx';

/**
 * The real nginx, with a directory of its own under the system's for temporary files.
 * @param locations configuration inside `server { … }`, beside the static files
 */
export async function startNginx(locations = ''): Promise<Nginx> {
  const home = mkdtempSync(join(tmpdir(), 'culvert-nginx-'));
  const root = join(home, 'root');
  mkdirSync(root);
  const port = await freePort();
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(
    join(home, 'nginx.conf'),
    `daemon off; master_process off; pid ${home}/pid; error_log stderr warn;
events { worker_connections 2048; }
http {
  access_log off; sendfile on; tcp_nopush on;
  default_type application/octet-stream;
  ${temporary.map((name) => `${name}_temp_path ${home}/${name};`).join(' ')}
  server { listen 127.0.0.1:${port}; root ${root}; ${locations} }
}
`,
  );
  const child = spawn(NGINX, ['-p', home, '-c', join(home, 'nginx.conf')], { stdio: ['ignore', 'ignore', 'pipe'] });
  let messages = '';
  child.stderr.on('data', (chunk: Buffer) => {
    messages += chunk.toString();
  });
  const exited = once(child, 'exit');
  const stop = (): void => {
    child.kill('SIGKILL');
    rmSync(home, { recursive: true, force: true });
  };
  process.once('exit', stop);
  await until('nginx accepts connections', async () => {
    if (child.exitCode !== null) throw new Error(`nginx ended: ${messages}`);
    return accepts(port);
  });
  return {
    url: `http://127.0.0.1:${port}`,
    root,
    async close() {
      process.off('exit', stop);
      stop();
      await exited;
    },
  };
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
