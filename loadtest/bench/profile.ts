import { copyFileSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { CulvertError } from '../../shared/errors/codes.ts';
import { openCheckout } from './checkout.ts';
import { LARGE_BYTES, LARGE_PATH, SMALL_PATH } from './content.ts';
import { type HotSpot, type Period, parseProfile, summarise } from './cpu-profile.ts';
import { fetchTimed } from './curl.ts';
import { parseCommand, repositoryRoot, wholeNumber } from './options.ts';
import { type Rig, runCommand, withRig } from './rig.ts';
import { type Role, startTunnel, type Tunnel } from './tunnel.ts';
import { runWrk } from './wrk.ts';

/** Time under load before what counts, in seconds, so that the profile shows optimised code. */
const WARM_UP_SECONDS = 3;

interface ProfileOptions {
  target: Role;
  load: 'requests' | 'transfer';
  seconds: number;
  top: number;
  dir: string;
  build: boolean;
  out?: string;
}

function options(): ProfileOptions {
  const command = new Command('profile')
    .description('Show in which functions the core or the agent spends its time under load')
    .addOption(new Option('--target <role>', 'Process to look at.').choices(['core', 'agent']).default('core'))
    .addOption(
      new Option('--load <kind>', 'wrk with small files, or large transfers one after another.')
        .choices(['requests', 'transfer'])
        .default('requests'),
    )
    .option('--seconds <number>', 'Time under load that counts.', wholeNumber(1, 600), 10)
    .option('--top <number>', 'Functions to list.', wholeNumber(1, 1000), 40)
    .option('--dir <checkout>', 'Checkout to run.', repositoryRoot())
    .option('--build', 'Compile and run built JavaScript instead of TypeScript.', false)
    .option('--out <file>', 'Keep the profile in this file, for the DevTools of a browser.');
  return parseCommand<ProfileOptions>(command);
}

async function profile(rig: Rig, { target, load, seconds, top, dir, build, out }: ProfileOptions): Promise<void> {
  const checkout = await openCheckout(rig.processes, dir, build);
  const profileDir = join(rig.dir, 'profile');
  const tunnel = await startTunnel(rig.processes, {
    checkout,
    dir: join(rig.dir, 'tunnel'),
    servicePort: rig.nginx.endpoint.port,
    nodeArgs: { [target]: ['--cpu-prof', '--cpu-prof-dir', profileDir] },
  });
  console.log(await applyLoad(rig, tunnel, load, WARM_UP_SECONDS, 'warm-up'));
  const from = microseconds();
  console.log(await applyLoad(rig, tunnel, load, seconds, 'measured'));
  const period = { from, to: microseconds() };
  await tunnel.services[target].stop();

  const file = readdirSync(profileDir).find((name) => name.endsWith('.cpuprofile'));
  if (file === undefined) throw new CulvertError('internal_error', `the ${target} wrote no profile`);
  if (out !== undefined) copyFileSync(join(profileDir, file), out);
  print(readFileSync(join(profileDir, file), 'utf8'), period, checkout.dir, top, target);
}

async function applyLoad(rig: Rig, { endpoint }: Tunnel, load: ProfileOptions['load'], seconds: number, what: string) {
  if (load === 'requests') {
    const { requestsPerSecond, p50, p99 } = await runWrk(rig.processes, endpoint, SMALL_PATH, seconds);
    return `${what}: ${requestsPerSecond.toFixed(0)} requests/s, p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`;
  }
  const end = microseconds() + seconds * 1e6;
  let bytes = 0;
  let spent = 0;
  do {
    const transfer = await fetchTimed(rig.processes, endpoint, LARGE_PATH, LARGE_BYTES);
    bytes += transfer.bytes;
    spent += transfer.seconds;
  } while (microseconds() < end);
  return `${what}: ${(bytes / spent / 1e6).toFixed(0)} MB/s`;
}

function print(text: string, period: Period, root: string, top: number, target: Role): void {
  const { busy, spots } = summarise(parseProfile(text), period, root);
  console.log(`\nmain thread of the ${target} busy ${percent(busy)}; shares of that time:\n`);
  console.log('  self   total  function');
  for (const spot of spots.slice(0, top)) console.log(row(spot));
  const files = Object.entries(Object.groupBy(spots, ({ file }) => file || '(engine)'))
    .map(([file, of = []]) => ({ file, self: of.reduce((sum, { self }) => sum + self, 0) }))
    .toSorted((a, b) => b.self - a.self);
  console.log('\n  self   file');
  for (const { file, self } of files.slice(0, Math.ceil(top / 2))) console.log(`${percent(self)}  ${file}`);
}

function row({ functionName, file, self, total }: HotSpot): string {
  return `${percent(self)}  ${percent(total)}  ${functionName}  ${file}`;
}

function percent(value: number): string {
  return `${(value * 100).toFixed(1)}%`.padStart(6);
}

/** The clock of `Period`. */
function microseconds(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

await runCommand(async () => {
  const given = options();
  await withRig(1, (rig) => profile(rig, given));
});
