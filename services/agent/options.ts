import type { Logger } from '../../shared/observability/logger.ts';
import type { TunnelPolicy } from '../../shared/policy/tunnel-policy.ts';
import type { RequestInfo } from './forward/exchange.ts';
import type { HostHeader } from './forward/target.ts';

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

export interface TlsOptions {
  /** PEM: who may have signed the core's certificate. Default: Node's built-in authorities. */
  readonly ca?: string | undefined;
  /** Name for SNI and verification. Default: the server's host. */
  readonly serverName?: string | undefined;
  /** Accept any certificate. Default false. */
  readonly skipVerify?: boolean | undefined;
}

/** One tunnel and the local service behind it. */
export interface TunnelSpec {
  /** Subdomain or custom domain, lower case. */
  readonly name: string;
  /** `http://`, `https://`, `h2c://` or `h2://` with host and port. */
  readonly url: string;
  /**
   * How the core serves the tunnel. Default: every rule's default. Of agents that ask for different ones, the one that connected
   * last has its way.
   */
  readonly policy?: TunnelPolicy | undefined;
}

export interface AgentOptions {
  readonly server: ServerAddress;
  /** The agent's JWT, or a function that brings the current one: asked before each connection and before it expires. */
  readonly token: string | (() => string | Promise<string>);
  /** At least one; names are unique. */
  readonly tunnels: readonly TunnelSpec[];
  /** False: cleartext, for a TLS proxy on the same machine. Default: TLS with verification. */
  readonly tls?: TlsOptions | false | undefined;
  /** The agent that the token must be for. Default: any. */
  readonly agentId?: string | undefined;
  /** Sessions to keep, 1–8. Default 2. */
  readonly connections?: number | undefined;
  /** Longest wait between attempts, milliseconds. Default 5,000. */
  readonly reconnectInterval?: number | undefined;
  /** Failed attempts in a row on one session before giving up; 0 is for ever. Default 0. */
  readonly maxRetries?: number | undefined;
  /** Milliseconds for connecting and being let in. Default 10,000. */
  readonly connectTimeout?: number | undefined;
  /** Milliseconds for the local service to begin its response. Default 30,000. */
  readonly requestTimeout?: number | undefined;
  /** Host header for the local service. Default `preserve`. */
  readonly hostHeader?: HostHeader | undefined;
  /** Path to check each local service with; no check without it. */
  readonly healthCheckPath?: string | undefined;
  /** Milliseconds between checks. Default 10,000. */
  readonly healthCheckInterval?: number | undefined;
  /** Accept any certificate of an https or h2 service. Default false. */
  readonly localTlsSkipVerify?: boolean | undefined;
  /** Called at the end of each request; must not throw. Costs nothing when absent. */
  readonly onRequest?: ((info: RequestInfo) => void) | undefined;
  readonly log?: Logger | undefined;
}
