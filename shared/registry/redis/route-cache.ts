import { CulvertError } from '../../errors/codes.ts';
import type { Route } from '../registry.ts';

const MAX_FOUND = 10_000;
const MAX_MISSING = 10_000;
const MAX_FETCHES = 1000;
/** Milliseconds for which a name is known not to exist. */
const MISSING_TTL = 1000;
/** Milliseconds for which a route is kept; events change it meanwhile. */
const FOUND_TTL = 5000;

interface Kept {
  readonly route: Route | undefined;
  readonly until: number;
}

/**
 * Routes that found no room in the replica. What does not exist is kept apart from what does, so that visitors who ask for
 * random hosts can push out each other's answers only.
 */
export class RouteCache {
  readonly #fetch: (name: string) => Promise<Route | undefined>;
  readonly #found = new Map<string, Kept>();
  readonly #missing = new Map<string, Kept>();
  readonly #fetches = new Map<string, Promise<Route | undefined>>();
  /** Raised by each event: an answer that was asked for before it may be older than it. */
  #changes = 0;

  constructor(fetch: (name: string) => Promise<Route | undefined>) {
    this.#fetch = fetch;
  }

  /** @throws CulvertError `overloaded` when too many different names are asked for at once */
  async get(name: string): Promise<Route | undefined> {
    const kept = this.#found.get(name) ?? this.#missing.get(name);
    if (kept !== undefined && kept.until > performance.now()) return kept.route;
    const running = this.#fetches.get(name);
    if (running !== undefined) return running;
    if (this.#fetches.size >= MAX_FETCHES) throw new CulvertError('overloaded', 'too many routes are being read');
    const fetching = this.#read(name).finally(() => this.#fetches.delete(name));
    this.#fetches.set(name, fetching);
    return fetching;
  }

  /** Forgets what it knows of a name that changed. */
  drop(name: string): void {
    this.#changes += 1;
    this.#found.delete(name);
    this.#missing.delete(name);
  }

  clear(): void {
    this.#changes += 1;
    this.#found.clear();
    this.#missing.clear();
  }

  async #read(name: string): Promise<Route | undefined> {
    const changes = this.#changes;
    const route = await this.#fetch(name);
    if (changes === this.#changes) {
      if (route === undefined)
        keep(this.#missing, MAX_MISSING, name, { route, until: performance.now() + MISSING_TTL });
      else keep(this.#found, MAX_FOUND, name, { route, until: performance.now() + FOUND_TTL });
    }
    return route;
  }
}

function keep(map: Map<string, Kept>, max: number, name: string, kept: Kept): void {
  map.delete(name);
  map.set(name, kept);
  if (map.size <= max) return;
  const oldest = map.keys().next();
  if (!oldest.done) map.delete(oldest.value);
}
