import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SMALL_PATH } from './content.ts';
import { answers, type Endpoint, freePort } from './endpoint.ts';
import type { ProcessGroup, Service } from './processes.ts';

/** Debian keeps it out of the PATH of ordinary users. */
export const NGINX = '/usr/sbin/nginx';
/** Time to answer, in milliseconds. */
const START_MS = 10_000;

export interface Nginx {
  readonly service: Service;
  readonly endpoint: Endpoint;
}

/** Serves the folder `root` on a free port of 127.0.0.1. `dir` holds its configuration and temporary files. */
export async function startNginx(processes: ProcessGroup, dir: string, root: string, workers: number): Promise<Nginx> {
  const port = await freePort();
  const configFile = join(dir, 'nginx.conf');
  writeFileSync(configFile, nginxConfig({ dir, root, port, workers }));
  const options = { cwd: dir, env: process.env, logFile: join(dir, 'nginx.log') };
  const args = ['-p', dir, '-c', configFile, '-e', 'stderr'];
  const service = await processes.start('nginx', NGINX, args, options);
  const endpoint = { port, host: `127.0.0.1:${port}` };
  await processes.waitFor(service, 'answer', START_MS, () => answers(endpoint, SMALL_PATH));
  return { service, endpoint };
}

interface NginxSettings {
  readonly dir: string;
  readonly root: string;
  readonly port: number;
  readonly workers: number;
}

export function nginxConfig({ dir, root, port, workers }: NginxSettings): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (name) => `  ${name}_temp_path "${join(dir, name)}";`,
  );
  // Started by root, workers would become another user, whom the temporary folder keeps out.
  const user = process.getuid?.() === 0 ? 'user root;\n' : '';
  return `
${user}daemon off;
worker_processes ${workers};
pid "${join(dir, 'nginx.pid')}";
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 300s;
  default_type application/octet-stream;
  open_file_cache max=16;
${temporary.join('\n')}
  server {
    listen 127.0.0.1:${port} backlog=4096;
    root "${root}";
  }
}
`;
}
