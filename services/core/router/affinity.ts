import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { type Endpoint, processOf, type Route } from '../../../shared/registry/registry.ts';
import { takeCookie } from './cookies.ts';

const COOKIE = 'culvert-affinity';
/** 128 bits: nobody guesses the name of an agent by trying. */
const TOKEN_BYTES = 16;

/** What a visitor of a sticky tunnel brought along. */
export interface Visit {
  /** For the service: without the cookie. */
  readonly headers: FlatHeaders;
  /** The agent processes that the visitor was with; mostly one. */
  readonly tokens: readonly string[];
}

/**
 * Keeps the visitors of sticky tunnels with the agent process that served them first, by a cookie. Its value is a keyed hash of
 * tunnel, agent and instance: it tells the visitor nothing, not even that two tunnels have the same agent, and is good for
 * nothing else. It names the process and not a session, so that a visitor stays when the agent's connection moves.
 */
export class Affinity {
  readonly #key: Buffer;
  /** Of each endpoint. Routes are immutable, so what was computed for one holds as long as it is in use. */
  readonly #tokens = new WeakMap<Route, readonly string[]>();

  /** @param secret the same on all nodes of the cluster; undefined: cookies hold until this process ends */
  constructor(secret: string | undefined) {
    const key = hkdfSync('sha256', secret ?? randomBytes(32), '', 'culvert affinity cookie v1', 32);
    this.#key = Buffer.from(key);
  }

  visit(headers: FlatHeaders): Visit {
    const { headers: rest, values } = takeCookie(headers, COOKIE);
    return { headers: rest, tokens: values };
  }

  /** The endpoints of the agent processes that the visitor was with. */
  preferred(route: Route, { tokens }: Visit): readonly Endpoint[] {
    if (tokens.length === 0) return [];
    const all = this.#tokensOf(route);
    return route.endpoints.filter((_, i) => tokens.includes(all[i] ?? ''));
  }

  /** The Set-Cookie field for a visitor who is served by this endpoint; undefined when what was brought says the same. */
  cookie(route: Route, endpoint: Endpoint, { tokens }: Visit, isSecure: boolean): string | undefined {
    const token = this.#tokensOf(route)[route.endpoints.indexOf(endpoint)] ?? '';
    if (tokens.includes(token)) return undefined;
    return `${COOKIE}=${token}; Path=/; HttpOnly; SameSite=Lax${isSecure ? '; Secure' : ''}`;
  }

  #tokensOf(route: Route): readonly string[] {
    let tokens = this.#tokens.get(route);
    if (tokens === undefined) {
      tokens = route.endpoints.map(({ session }) => this.#token(route.name, processOf(session.id)));
      this.#tokens.set(route, tokens);
    }
    return tokens;
  }

  #token(name: string, process: string): string {
    const hash = createHmac('sha256', this.#key).update(`${name}\n${process}`).digest();
    return hash.subarray(0, TOKEN_BYTES).toString('base64url');
  }
}
