import fastify, { type FastifyInstance } from 'fastify';
import { CulvertError } from '../../../shared/errors/codes.ts';

/** Whether the node can serve now, and if not, why. */
export interface Readiness {
  readonly ready: boolean;
  readonly checks: Readonly<Record<string, boolean>>;
}

export interface ApiOptions {
  readonly host: string;
  readonly port: number;
  readonly nodeId: string;
  readonly version: string;
  readonly readiness: () => Readiness;
}

export interface ApiServer {
  readonly port: number;
  close(): Promise<void>;
}

/** Largest request body, bytes: nothing here takes one. */
const BODY_LIMIT = 1024;
const REQUEST_TIMEOUT = 10_000;

/**
 * Serves `/health/live` (the process runs) and `/health/ready` (it can really serve: 200, else 503 with what is missing).
 * @throws CulvertError `invalid_config` when it cannot listen
 */
export async function startApi(options: ApiOptions): Promise<ApiServer> {
  const app: FastifyInstance = fastify({
    bodyLimit: BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT,
    forceCloseConnections: true,
  });
  app.addHook('onSend', async (_request, reply) => {
    reply.header('cache-control', 'no-store').header('x-content-type-options', 'nosniff');
  });
  app.get('/health/live', async () => ({ live: true, node: options.nodeId, version: options.version }));
  app.get('/health/ready', async (_request, reply) => {
    const readiness = options.readiness();
    return reply.code(readiness.ready ? 200 : 503).send({ ...readiness, node: options.nodeId });
  });
  app.setNotFoundHandler(async (_request, reply) =>
    reply.code(404).send({ error: { code: 'bad_request', message: 'there is nothing at this path' } }),
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
    close: () => app.close(),
  };
}
