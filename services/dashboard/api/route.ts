import type { z } from 'zod';
import type { Principal } from '../../../shared/control/principal.ts';
import { CulvertError, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { Permission } from './auth/authorize.ts';

export interface RouteInput {
  readonly params: unknown;
  readonly query: unknown;
  readonly body: unknown;
  readonly principal: Principal;
}

/** What is said of a route: its place, who may use it, and its schemas, from which checks and the reference derive. */
export interface RouteDescription extends Permission {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Below /api/v1, with parameters as `:name`. */
  readonly path: string;
  /** Heading of the reference that it stands under. */
  readonly tag: string;
  /** A line for the reference, and its text. */
  readonly summary: string;
  readonly description?: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodObject;
  readonly answer: z.ZodType;
  /** Codes that it answers with besides those that any route may have. */
  readonly errors?: readonly ErrorCode[];
}

export interface ApiRoute extends RouteDescription {
  /** @throws CulvertError `bad_request` for input that the schemas refuse, and those of the route */
  run(input: RouteInput): Promise<unknown>;
}

type OutputOf<S extends z.ZodObject | undefined> = S extends z.ZodObject ? z.output<S> : undefined;

interface RouteDefinition<
  P extends z.ZodObject | undefined,
  Q extends z.ZodObject | undefined,
  B extends z.ZodObject | undefined,
  A extends z.ZodType,
> extends RouteDescription {
  readonly params?: P & z.ZodObject;
  readonly query?: Q & z.ZodObject;
  readonly body?: B & z.ZodObject;
  readonly answer: A;
  handle(input: {
    readonly params: OutputOf<P>;
    readonly query: OutputOf<Q>;
    readonly body: OutputOf<B>;
    readonly principal: Principal;
  }): z.output<A> | Promise<z.output<A>>;
}

/** One route. Its handler gets what the schemas have passed, and may throw any CulvertError: that is the answer then. */
export function defineRoute<
  A extends z.ZodType,
  P extends z.ZodObject | undefined = undefined,
  Q extends z.ZodObject | undefined = undefined,
  B extends z.ZodObject | undefined = undefined,
>(definition: RouteDefinition<P, Q, B, A>): ApiRoute {
  return {
    ...definition,
    run: async ({ params, query, body, principal }) =>
      definition.handle({
        params: parse('path', definition.params, params) as OutputOf<P>,
        query: parse('query', definition.query, query) as OutputOf<Q>,
        body: parse('body', definition.body, body ?? {}) as OutputOf<B>,
        principal,
      }),
  };
}

function parse(where: string, schema: z.ZodObject | undefined, input: unknown): unknown {
  if (schema === undefined) return undefined;
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const at = issue?.path.join('.') ?? '';
  throw new CulvertError('bad_request', `${where}${at === '' ? '' : ` ${at}`}: ${issue?.message ?? 'not valid'}`);
}
