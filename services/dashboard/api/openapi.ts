import { z } from 'zod';
import { ERROR_CODES, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { ApiRoute } from './route.ts';

/** Codes that any route may answer with. */
const COMMON_ERRORS: readonly ErrorCode[] = ['bad_request', 'invalid_token', 'forbidden', 'internal_error'];

const ErrorAnswer = z.object({
  error: z.object({ code: z.enum(Object.keys(ERROR_CODES)), message: z.string(), request_id: z.string() }),
});

/** The OpenAPI 3.1 document of these routes; its schemas are those that check them. */
export function openApi(routes: readonly ApiRoute[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = `/api/v1${route.path.replace(/:(\w+)/g, '{$1}')}`;
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Culvert', version, description: 'The control API, which every node of a cluster serves alike.' },
    paths,
    components: {
      schemas: { Error: jsonSchema(ErrorAnswer) },
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
    },
    security: [{ bearer: [] }],
  };
}

/** Codes that a route may answer with, by status. */
export function errorsOf(route: ApiRoute): Map<number, ErrorCode[]> {
  return Map.groupBy([...COMMON_ERRORS, ...(route.errors ?? [])], (code) => ERROR_CODES[code].status);
}

export function jsonSchema(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { target: 'draft-2020-12' });
  return rest;
}

function operation(route: ApiRoute): Record<string, unknown> {
  const { method, path, tag, summary, description, role, scope, answer, body } = route;
  const errors = [...errorsOf(route)].map(([status, codes]) => [
    String(status),
    {
      description: codes.join(', '),
      content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
    },
  ]);
  const who = `Role: ${role}.${scope === 'cluster' ? ' Not for tokens of one account.' : ''}`;
  return {
    operationId: `${method.toLowerCase()}${path.replace(/[/:]+(\w)/g, (_match, letter: string) => letter.toUpperCase())}`,
    tags: [tag],
    summary,
    description: description === undefined ? who : `${description} ${who}`,
    parameters: [...parameters('path', route.params), ...parameters('query', route.query)],
    ...(body === undefined ? {} : { requestBody: { content: { 'application/json': { schema: jsonSchema(body) } } } }),
    responses: {
      200: { description: 'Done.', content: { 'application/json': { schema: jsonSchema(answer) } } },
      ...Object.fromEntries(errors),
    },
  };
}

function parameters(place: 'path' | 'query', schema: z.ZodObject | undefined): Record<string, unknown>[] {
  return Object.entries(schema?.shape ?? {}).map(([name, value]) => {
    const { description, ...rest } = jsonSchema(value as z.ZodType);
    const isRequired = place === 'path' || !(value as z.ZodType).safeParse(undefined).success;
    return {
      name,
      in: place,
      required: isRequired,
      ...(description === undefined ? {} : { description }),
      schema: rest,
    };
  });
}
