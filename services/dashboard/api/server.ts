import { randomUUID } from 'node:crypto';
import fastify, { type FastifyInstance } from 'fastify';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import { type Authenticator, authenticate, authorize } from './auth/authorize.ts';
import { ClusterView } from './cluster-view.ts';
import type { ApiContext } from './context.ts';
import { EventHub } from './events/event-hub.ts';
import { mountErrors, mountRoutes, PREFIX } from './mount.ts';
import { openApi } from './openapi.ts';
import { REFERENCE_CSP, referencePage } from './reference-page.ts';
import { agentRoutes } from './routes/agents.ts';
import { nodeRoutes } from './routes/nodes.ts';
import { overviewRoutes } from './routes/overview.ts';
import { tunnelRoutes } from './routes/tunnels.ts';

/** Whether the node can serve now, and if not, why. */
export interface Readiness {
  readonly ready: boolean;
  readonly checks: Readonly<Record<string, boolean>>;
}

export interface ApiOptions extends Omit<ApiContext, 'view'> {
  readonly host: string;
  readonly port: number;
  readonly nodeId: string;
  readonly version: string;
  readonly readiness: () => Readiness;
  readonly log: Logger;
  /** Ways to prove who asks, in the order in which they are tried. */
  readonly authenticators: readonly Authenticator[];
}

export interface ApiServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Largest request body, bytes. */
const BODY_LIMIT = 64 * 1024;
/** Connections at once: people, scripts and health checks. */
const MAX_CONNECTIONS = 1024;
/** Longest path parameter, characters: the id of a session. */
const MAX_PARAMETER = 1024;
const REQUEST_TIMEOUT = 10_000;

const EVENT_STREAM_HEADERS = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  // Proxies of the nginx family would gather the events otherwise.
  'x-accel-buffering': 'no',
};

/**
 * Serves the API and its reference below `/api/v1`, `/health/live` (the process runs) and `/health/ready` (it can really serve: 200, else 503 with what is missing).
 * @throws CulvertError `invalid_config` when it cannot listen
 */
export async function startApi(options: ApiOptions): Promise<ApiServer> {
  const app: FastifyInstance = fastify({
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT,
    forceCloseConnections: true,
    genReqId: () => randomUUID(),
    routerOptions: { maxParamLength: MAX_PARAMETER },
  });
  app.server.maxConnections = MAX_CONNECTIONS;
  mountErrors(app, options.log);
  app.addHook('onSend', async (_request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff');
  });
  app.get('/health/live', async () => ({ live: true, node: options.nodeId, version: options.version }));
  app.get('/health/ready', async (_request, reply) => {
    const readiness = options.readiness();
    return reply.code(readiness.ready ? 200 : 503).send({ ...readiness, node: options.nodeId });
  });
  const context = { ...options, view: new ClusterView(options.registry, options.calls) };
  const routes = [
    ...overviewRoutes(context),
    ...nodeRoutes(context),
    ...agentRoutes(context),
    ...tunnelRoutes(context),
  ];
  mountRoutes(app, routes, options);
  const events = new EventHub(context);
  app.get(`${PREFIX}/events`, async (request, reply) => {
    const { method, headers } = request;
    const principal = await authenticate(options.authenticators, { method, headers });
    authorize(principal, { role: 'viewer', scope: 'account' });
    events.assertRoom();
    reply.hijack();
    reply.raw.writeHead(200, EVENT_STREAM_HEADERS);
    const lastId = headers['last-event-id'];
    events.add(principal, reply.raw, typeof lastId === 'string' ? lastId : undefined);
  });
  // What the API is like is no secret; what it tells is.
  app.get(`${PREFIX}/openapi.json`, async () => openApi(routes, options.version));
  app.get(`${PREFIX}/docs`, async (_request, reply) =>
    reply
      .header('content-security-policy', REFERENCE_CSP)
      .type('text/html; charset=utf-8')
      .send(referencePage(routes, options.version)),
  );
  try {
    await app.listen({ port: options.port, host: options.host === '' ? '::' : options.host });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new CulvertError(
      'invalid_config',
      `dashboard-addr: cannot listen on ${options.host}:${options.port}: ${why}`,
      { cause: error },
    );
  }
  const address = app.server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    close: () => {
      events.close();
      return app.close();
    },
  };
}
