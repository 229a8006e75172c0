import { afterEach, beforeEach, describe } from 'node:test';
import { eventContract } from './contract/events.contract.ts';
import { limitContract } from './contract/limits.contract.ts';
import { nameContract } from './contract/names.contract.ts';
import { policyContract } from './contract/policies.contract.ts';
import { readContract } from './contract/reads.contract.ts';
import { sessionContract } from './contract/sessions.contract.ts';
import { type RegistryFixture, TestCluster } from './contract/support.contract.ts';

export type { RegistryFixture } from './contract/support.contract.ts';

export interface ContractOptions {
  /** Tunnels in the test of size. Default 100,000 (DESIGN.md section 4, invariant 3). */
  readonly manyTunnels?: number;
  /** Rounds of each race. Default 200. */
  readonly races?: number;
}

/**
 * The suite that every implementation of `Registry` passes: each documented behaviour, and invariants 1 and 2 of
 * DESIGN.md section 4. `factory` makes an empty registry for each test.
 */
export function registryContract(
  name: string,
  factory: () => Promise<RegistryFixture>,
  options: ContractOptions = {},
): void {
  const { manyTunnels = 100_000, races = 200 } = options;
  describe(`${name}: registry contract`, () => {
    const cluster = new TestCluster(factory);
    beforeEach(() => cluster.start());
    afterEach(() => cluster.stop());
    nameContract(cluster, races);
    limitContract(cluster, races);
    policyContract(cluster);
    sessionContract(cluster, races);
    eventContract(cluster);
    readContract(cluster, manyTunnels);
  });
}
