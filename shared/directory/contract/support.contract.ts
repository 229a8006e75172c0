import assert from 'node:assert/strict';
import { CulvertError, type ErrorCode } from '../../errors/codes.ts';
import type { Directory } from '../directory.ts';
import type { KeySpec } from '../operations.ts';
import type { FieldsOf, Kind } from '../records.ts';

/** Two nodes' views of one directory. One that knows one node only gives the same object twice. */
export interface DirectoryFixture {
  readonly a: Directory;
  readonly b: Directory;
  /** Resolves when both nodes have what was written before the call. */
  settled(): Promise<void>;
  /** Closes both and frees the store. */
  close(): Promise<void>;
}

export interface FixtureOptions {
  readonly limits: Readonly<Record<Kind, number>>;
}

/** Of each test's directory, so that reaching them is quick. */
export const TEST_LIMITS = { account: 60, agent: 60, key: 60, revocation: 60 } as const;

/** The fixture of the test that runs now. */
export class TestDirectories {
  readonly #factory: (options: FixtureOptions) => Promise<DirectoryFixture>;
  #fixture: DirectoryFixture | undefined;

  constructor(factory: (options: FixtureOptions) => Promise<DirectoryFixture>) {
    this.#factory = factory;
  }

  async start(): Promise<void> {
    this.#fixture = await this.#factory({ limits: TEST_LIMITS });
  }

  async stop(): Promise<void> {
    await this.#current.close();
    this.#fixture = undefined;
  }

  get a(): Directory {
    return this.#current.a;
  }

  get b(): Directory {
    return this.#current.b;
  }

  settled(): Promise<void> {
    return this.#current.settled();
  }

  get #current(): DirectoryFixture {
    assert.ok(this.#fixture, 'no test is running');
    return this.#fixture;
  }
}

export function account(overrides: Partial<FieldsOf<'account'>> = {}): FieldsOf<'account'> {
  return { name: 'Acme', disabled: false, limits: {}, createdBy: 'root', ...overrides };
}

export function agent(overrides: Partial<FieldsOf<'agent'>> = {}): FieldsOf<'agent'> {
  return { accountId: 'acme', agentId: 'laptop', name: '', disabled: false, createdBy: 'root', ...overrides };
}

export function keySpec(overrides: Partial<KeySpec> = {}): KeySpec {
  return {
    name: 'ci',
    accountId: 'acme',
    agentId: null,
    role: 'viewer',
    scopes: ['connect'],
    names: null,
    limits: {},
    expiresAt: null,
    createdBy: 'root',
    ...overrides,
  };
}

export function withCode(code: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CulvertError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}
