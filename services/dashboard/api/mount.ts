import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Principal } from '../../../shared/control/principal.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import { type Authenticator, authenticate, authorize } from './auth/authorize.ts';
import type { ApiRoute } from './route.ts';

export const PREFIX = '/api/v1';

export interface MountOptions {
  readonly authenticators: readonly Authenticator[];
  readonly log: Logger;
}

/** Serves the routes: who asks, whether they may, what they send, and then what the route does. */
export function mountRoutes(app: FastifyInstance, routes: readonly ApiRoute[], options: MountOptions): void {
  for (const route of routes) {
    app.route({
      method: route.method,
      url: PREFIX + route.path,
      handler: async (request, reply) => {
        const principal = await authenticate(options.authenticators, {
          method: request.method,
          headers: request.headers,
        });
        authorize(principal, route);
        const { params, query, body } = request;
        const run = route.run({ params, query, body, principal });
        const answer = await (route.method === 'GET' ? run : logged(run, route, request, principal, options.log));
        return reply.send(answer);
      },
    });
  }
}

/** Who changed what, and with which result. */
async function logged<T>(
  run: Promise<T>,
  { method, path }: ApiRoute,
  { params, id }: FastifyRequest,
  { name, role, accountId }: Principal,
  log: Logger,
): Promise<T> {
  const what = { by: name, role, account: accountId, method, path, params, requestId: id };
  try {
    const answer = await run;
    log.info(what, 'changed through the API');
    return answer;
  } catch (error) {
    log.warn({ ...what, err: error }, 'a change through the API failed');
    throw error;
  }
}

/** Every error as the table has it: status, code, message, request id. */
export function mountErrors(app: FastifyInstance, log: Logger): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const known = asKnown(error);
    if (known.code === 'internal_error')
      log.error({ err: error, requestId: request.id }, 'a request to the API failed');
    return sendError(reply, request, known);
  });
  app.setNotFoundHandler((request, reply) =>
    sendError(reply, request, new CulvertError('not_found', 'there is nothing at this path, or not with this method')),
  );
}

function sendError(
  reply: FastifyReply,
  request: FastifyRequest,
  { code, status, message }: CulvertError,
): FastifyReply {
  // RFC 6750 section 3.
  if (code === 'invalid_token') reply.header('www-authenticate', 'Bearer realm="culvert"');
  return reply.code(status).send({ error: { code, message, request_id: request.id } });
}

/** What fastify refuses by itself is a bad request; nothing else of an unexpected error reaches the outside. */
function asKnown(error: FastifyError): CulvertError {
  if (error instanceof CulvertError) return error;
  const { statusCode = 500 } = error;
  if (statusCode === 413) return new CulvertError('body_too_large');
  if (statusCode >= 400 && statusCode < 500) return new CulvertError('bad_request', error.message);
  return new CulvertError('internal_error');
}
