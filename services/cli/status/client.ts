import { z } from 'zod';
import { CulvertError, isErrorCode } from '../../../shared/errors/codes.ts';
import { AgentPage, NodePage, Overview, TunnelPage } from '../../dashboard/api/schemas.ts';
import type { StatusConfig } from './options.ts';

/** What `culvert status` knows, as the API says it. */
export interface Status {
  readonly overview: Overview;
  /** Undefined for a token of one account, which does not see the nodes. */
  readonly nodes: z.output<typeof NodePage> | undefined;
  readonly agents: z.output<typeof AgentPage>;
  readonly tunnels: z.output<typeof TunnelPage>;
}

/** Milliseconds: the API answers within two seconds, also when a node of the cluster does not. */
const TIMEOUT = 10_000;

const ErrorAnswer = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/** @throws CulvertError with the code of the API, or `connection_closed` when there is none at this address */
export async function fetchStatus(config: StatusConfig): Promise<Status> {
  const { limit, search } = config;
  const query = new URLSearchParams({ limit: String(limit), ...(search === undefined ? {} : { search }) });
  const overview = await get(Overview, '/overview', config);
  const [nodes, agents, tunnels] = await Promise.all([
    overview.cluster === null ? undefined : get(NodePage, '/nodes?limit=500', config),
    get(AgentPage, `/agents?${query}`, config),
    get(TunnelPage, `/tunnels?${query}`, config),
  ]);
  return { overview, nodes, agents, tunnels };
}

async function get<T>(schema: z.ZodType<T>, path: string, { url, token }: StatusConfig): Promise<T> {
  let response: Response;
  let body: unknown;
  try {
    response = await fetch(`${url}/api/v1${path}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      // The token is for this address and no other.
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT),
    });
    body = await response.json();
  } catch (error) {
    throw new CulvertError('connection_closed', `${url} does not answer as a node: ${reason(error)}`, { cause: error });
  }
  if (response.ok) {
    const answer = schema.safeParse(body);
    if (answer.success) return answer.data;
    throw new CulvertError('unsupported_protocol', `${url} answers in another way than this version expects`);
  }
  const { data } = ErrorAnswer.safeParse(body);
  const code = data?.error.code ?? '';
  throw new CulvertError(
    isErrorCode(code) ? code : 'internal_error',
    `${url}: ${data?.error.message ?? `status ${response.status}`}`,
  );
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== '' ? error.cause.message : error.message;
}
