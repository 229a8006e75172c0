import { afterEach, beforeEach, describe } from 'node:test';
import { accessContract } from './contract/access.contract.ts';
import { changeContract } from './contract/changes.contract.ts';
import { readContract } from './contract/reads.contract.ts';
import { type DirectoryFixture, type FixtureOptions, TestDirectories } from './contract/support.contract.ts';

export type { DirectoryFixture, FixtureOptions } from './contract/support.contract.ts';

/** The suite that every implementation of `Directory` passes. `factory` makes an empty directory for each test. */
export function directoryContract(name: string, factory: (options: FixtureOptions) => Promise<DirectoryFixture>): void {
  describe(`${name}: directory contract`, () => {
    const nodes = new TestDirectories(factory);
    beforeEach(() => nodes.start());
    afterEach(() => nodes.stop());
    changeContract(nodes);
    readContract(nodes);
    accessContract(nodes);
  });
}
