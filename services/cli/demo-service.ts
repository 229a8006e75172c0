import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import type { Address } from '../../shared/config/net-values.ts';
import { CulvertError } from '../../shared/errors/codes.ts';

export interface DemoService {
  readonly port: number;
  close(): void;
}

/** Milliseconds between the events of `/events`. */
const EVENT_INTERVAL = 1000;

/**
 * The small web service that `culvert up` puts behind its first tunnel, so that there is something to visit.
 * @param address `host` '' listens on all addresses, `port` 0 takes a free one
 * @throws CulvertError `invalid_config` when it cannot listen there
 */
export async function startDemoService(address: Address = { host: '127.0.0.1', port: 0 }): Promise<DemoService> {
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (path === '/') return welcome(request, response);
    if (path === '/headers') return headers(request, response);
    if (path === '/events') return events(response);
    response.writeHead(404, { 'content-type': 'text/plain' }).end('The demo has /, /headers and /events.\n');
  });
  server.listen(address);
  try {
    await once(server, 'listening');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CulvertError('invalid_config', `addr: ${why}`, { cause: error });
  }
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function welcome(request: IncomingMessage, response: ServerResponse): void {
  const line = `Hello from the demo service on ${hostname()}, through a Culvert tunnel.`;
  if (!(request.headers.accept ?? '').includes('text/html')) {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end(`${line}\n`);
    return;
  }
  response.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Culvert demo</title>
<style>:root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:12vh auto;padding:0 1.5rem}
code{background:color-mix(in srgb,currentColor 10%,transparent);padding:.1em .4em;border-radius:.3em}
li{margin:.4em 0}</style>
<h1>It works</h1><p>${line}</p>
<ul><li><a href="/headers">/headers</a> shows what the service was sent</li>
<li><a href="/events">/events</a> streams one event a second</li></ul>
<p>Serve your own: <code>npm run culvert -- http 3000</code></p></html>
`);
}

function headers(request: IncomingMessage, response: ServerResponse): void {
  const { method, url, httpVersion, rawHeaders } = request;
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify({ method, url, httpVersion, rawHeaders }, null, 2)}\n`);
}

function events(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = (): void => void response.write(`data: ${new Date().toISOString()}\n\n`);
  send();
  const timer = setInterval(send, EVENT_INTERVAL);
  response.on('close', () => clearInterval(timer));
}
