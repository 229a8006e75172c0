import assert from 'node:assert/strict';
import type { ErrorCode } from '../../errors/codes.ts';
import { CulvertError } from '../../errors/codes.ts';
import type { NodeId, Registry, Route, SessionClaim, SessionRef, TunnelClaim } from '../registry.ts';

/** Two nodes' views of one cluster. A registry that knows one node only gives the same object twice. */
export interface RegistryFixture {
  readonly a: Registry;
  readonly b: Registry;
  /** Resolves when `lookup` and the listeners of both nodes have what was written before the call. */
  settled(): Promise<void>;
  /** Closes both registries and frees the store. */
  close(): Promise<void>;
}

/** The fixture of the test that runs now. */
export class TestCluster {
  readonly #factory: () => Promise<RegistryFixture>;
  #fixture: RegistryFixture | undefined;

  constructor(factory: () => Promise<RegistryFixture>) {
    this.#factory = factory;
  }

  async start(): Promise<void> {
    this.#fixture = await this.#factory();
  }

  async stop(): Promise<void> {
    await this.#current.close();
    this.#fixture = undefined;
  }

  get a(): Registry {
    return this.#current.a;
  }

  get b(): Registry {
    return this.#current.b;
  }

  settled(): Promise<void> {
    return this.#current.settled();
  }

  /** What both nodes find, after checking that they find the same. */
  async lookup(host: string): Promise<Route | undefined> {
    await this.settled();
    assert.deepEqual(this.a.lookup(host), this.b.lookup(host));
    return this.a.lookup(host);
  }

  get #current(): RegistryFixture {
    assert.ok(this.#fixture, 'no test is running');
    return this.#fixture;
  }
}

export const NODE_A = 'node-a' as NodeId;
export const NODE_B = 'node-b' as NodeId;
export const PLENTY = 1_000_000;

export function claim(overrides: Partial<SessionClaim> = {}): SessionClaim {
  return {
    agentId: 'agent-1',
    accountId: 'acme',
    instanceId: 'i1',
    slot: 0,
    nodeId: NODE_A,
    maxSessionsPerAccount: PLENTY,
    ...overrides,
  };
}

export function tunnel(name: string, overrides: Partial<TunnelClaim> = {}): TunnelClaim {
  return { name, localAddr: 'http://localhost:3000', healthy: true, ...overrides };
}

export function refOf({ id, epoch }: SessionRef): SessionRef {
  return { id, epoch };
}

export function withCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CulvertError, String(error));
    assert.equal(error.code, code);
    return true;
  };
}

export function names(routes: readonly Route[]): string[] {
  return routes.map((route) => route.name).sort();
}

export function epochs(route: Route | undefined): number[] {
  return (route?.endpoints ?? []).map((endpoint) => endpoint.session.epoch).sort((x, y) => x - y);
}

/** Checks that exactly one of two claims won and that the other was refused with `code`; tells which one won. */
export function oneWinner(results: readonly PromiseSettledResult<unknown>[], code: ErrorCode): number {
  const won = results.findIndex((result) => result.status === 'fulfilled');
  assert.deepEqual(results.map((result) => result.status).sort(), ['fulfilled', 'rejected']);
  const lost = results[1 - won];
  if (lost?.status === 'rejected') withCode(code)(lost.reason);
  return won;
}
