import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { CulvertError } from '../../shared/errors/codes.ts';
import type { ProcessGroup } from './processes.ts';

const COMPILE_MS = 180_000;
const BUILT_MAIN = join('dist', 'services', 'cli', 'main.js');
const SOURCE_MAIN = join('services', 'cli', 'main.ts');

/** A working copy of Culvert and how its command line is run. */
export interface Checkout {
  readonly dir: string;
  /** Arguments for Node before those for `culvert`. */
  readonly nodeArgs: readonly string[];
  /** Built JavaScript rather than TypeScript through tsx. */
  readonly built: boolean;
}

/**
 * With `build`, compiles the working copy into its dist/. Throws CulvertError `invalid_config` when `dir` is no checkout
 * with its packages installed, `internal_error` when it does not compile.
 */
export async function openCheckout(processes: ProcessGroup, dir: string, build: boolean): Promise<Checkout> {
  const root = resolve(dir);
  for (const needed of [SOURCE_MAIN, 'node_modules']) {
    if (!existsSync(join(root, needed))) {
      throw new CulvertError('invalid_config', `${root} has no ${needed}: not a checkout after npm ci`);
    }
  }
  if (!build) return { dir: root, nodeArgs: ['--import', 'tsx', SOURCE_MAIN], built: false };
  const compiler = join(root, 'node_modules', '.bin', 'tsc');
  // The types are checked by the tests; a mistake in one of those must not keep anybody from measuring.
  await processes.capture(compiler, ['-p', 'tsconfig.json', '--noCheck'], COMPILE_MS, root);
  return { dir: root, nodeArgs: [BUILT_MAIN], built: true };
}

/** The environment without what would change defaults of the core, the agent or Node. */
export function plainEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(environment).filter(([name]) => !/^(TUNNEL_|AGENT_|NODE_OPTIONS$)/.test(name));
  return Object.fromEntries(kept);
}
