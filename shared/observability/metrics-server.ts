import { createServer, type Server, type ServerResponse } from 'node:http';
import type { Registry } from 'prom-client';
import { CulvertError } from '../errors/codes.ts';

export interface MetricsServer {
  /** The port in use, also where 0 was asked for. */
  readonly port: number;
  close(): Promise<void>;
}

/** Scrapers are few; more connections than this are a fault or an attack. */
const MAX_CONNECTIONS = 64;
/** Longest time for the head of a request, ms. */
const HEADERS_TIMEOUT = 5_000;

/**
 * Serves `GET /metrics` (Prometheus text format 0.0.4), `GET /health/live` and, where `isReady` is given, `GET /health/ready`
 * (200 or 503); everything else is 404.
 * @param address `host` '' listens on all addresses, `port` 0 takes a free one.
 * @param isReady where given, `GET /health/ready` answers 200 or 503 as it says.
 * @throws CulvertError `invalid_config` when it cannot listen there.
 */
export async function startMetricsServer(
  address: { readonly host: string; readonly port: number },
  registry: Registry,
  isReady?: () => boolean,
): Promise<MetricsServer> {
  let scrape: Promise<string> | undefined;
  // Scrapes that come together share one: writing the text of a large registry takes milliseconds of the event loop.
  const metrics = (): Promise<string> => {
    scrape ??= registry.metrics().finally(() => {
      scrape = undefined;
    });
    return scrape;
  };
  const server = createServer(
    { headersTimeout: HEADERS_TIMEOUT, requestTimeout: HEADERS_TIMEOUT },
    (request, response) => {
      const path = request.url?.split('?', 1)[0];
      const reads = request.method === 'GET' || request.method === 'HEAD';
      if (reads && path === '/health/live') return reply(response, 200, 'ok\n');
      if (reads && path === '/health/ready' && isReady !== undefined) {
        return isReady() ? reply(response, 200, 'ready\n') : reply(response, 503, 'not ready\n');
      }
      if (!reads || path !== '/metrics') return reply(response, 404, 'not found\n');
      metrics().then(
        (text) => reply(response, 200, text, registry.contentType),
        (error: unknown) => reply(response, 500, `the metrics cannot be collected: ${String(error)}\n`),
      );
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listening(server, address);
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : address.port;
  return {
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        // close() alone ends idle connections only, and waits for as long as a scraper takes.
        server.closeAllConnections();
      }),
  };
}

function reply(response: ServerResponse, status: number, body: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

function listening(server: Server, address: { readonly host: string; readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    // Stays after the start: a server also emits `error` when accepting fails (EMFILE), and unheard that ends the process.
    server.on('error', (error) => {
      const where = `${address.host}:${address.port}`;
      reject(
        new CulvertError('invalid_config', `cannot serve metrics on ${where}: ${error.message}`, { cause: error }),
      );
    });
    server.listen({ host: address.host, port: address.port }, resolve);
  });
}
