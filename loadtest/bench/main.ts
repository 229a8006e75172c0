import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { CulvertError } from '../../shared/errors/codes.ts';
import { openCheckout } from './checkout.ts';
import { LARGE_PATH, SMALL_PATH } from './content.ts';
import { fetchDigest } from './curl.ts';
import { measureRounds, type Target } from './measure.ts';
import { decimal, parseCommand, repositoryRoot, wholeNumber } from './options.ts';
import { DIRECT, describeMachine, type Machine, type Measured, makeReport, type Report } from './report.ts';
import { reportMarkdown, reportText, roundLine } from './report-text.ts';
import { writeResults } from './results-page.ts';
import { type Rig, runCommand, withRig } from './rig.ts';
import { startTunnel } from './tunnel.ts';
import { readUsage } from './usage.ts';
import { runWrk } from './wrk.ts';

/** Time under load before the first round, in seconds: Node compiles what is hot within it. */
const WARM_UP_SECONDS = 5;
/** From this many runnable processes on, a machine is not idle enough for numbers to be kept. */
const BUSY_LOAD = 0.5;

interface BenchOptions {
  rounds: number;
  seconds: number;
  workers: number;
  dir: string;
  against?: string;
  build: boolean;
  minShare?: number;
  json?: string;
  markdown: boolean;
}

function options(): BenchOptions {
  const command = new Command('bench')
    .description('Compare a tunnel with nginx itself: wrk with 64 connections and 1 KiB, and transfers of 1 GB')
    .option('--rounds <number>', 'Rounds, in each of which every target is measured once.', wholeNumber(1, 1000), 5)
    .option('--seconds <number>', 'Time of wrk in each round and for each target.', wholeNumber(1, 600), 10)
    .option('--workers <number>', 'Worker processes of nginx, 1 or 2.', wholeNumber(1, 2), 1)
    .option('--dir <checkout>', 'Checkout to measure.', repositoryRoot())
    .option('--against <checkout>', 'Another checkout, measured in the same rounds.')
    .option('--build', 'Compile and run built JavaScript instead of TypeScript.', false)
    .option('--min-share <number>', 'Exit with 1 when less of the direct requests/s is reached.', decimal(0, 1))
    .option('--json <file>', 'Write everything that was measured to this file.')
    .option('--markdown', 'Write the results to loadtest/README.md.', false)
    .addHelpText('after', '\nExit codes: 0 done, 1 failed or below --min-share, 2 wrong use or a program is missing.');
  return parseCommand<BenchOptions>(command);
}

async function bench(rig: Rig, given: BenchOptions, machine: Machine): Promise<void> {
  const direct: Target = { name: DIRECT, endpoint: rig.nginx.endpoint, services: undefined };
  const tunnels = [await openTunnel(rig, 'tunnel', given.dir, given.build)];
  if (given.against !== undefined) tunnels.push(await openTunnel(rig, 'against', given.against, given.build));
  for (const target of [direct, ...tunnels]) {
    await checkContent(rig, target);
    await runWrk(rig.processes, target.endpoint, SMALL_PATH, WARM_UP_SECONDS);
  }
  const load = { rounds: given.rounds, seconds: given.seconds };
  const rounds = await measureRounds(rig.processes, [direct, ...tunnels], load, (round, samples) =>
    console.log(roundLine(round, samples)),
  );
  const measured = ({ name, services }: Target): Measured => ({
    name,
    samples: rounds.get(name) ?? [],
    ...(services && { usage: { core: readUsage(services.core.pid), agent: readUsage(services.agent.pid) } }),
  });
  const facts = { machine, load, workers: given.workers, built: given.build };
  conclude(makeReport(facts, measured(direct), tunnels.map(measured)), given);
}

async function openTunnel(rig: Rig, name: string, dir: string, build: boolean) {
  const checkout = await openCheckout(rig.processes, dir, build);
  const servicePort = rig.nginx.endpoint.port;
  const { endpoint, services } = await startTunnel(rig.processes, { checkout, dir: join(rig.dir, name), servicePort });
  return { name, endpoint, services };
}

/** Speed counts only when the bytes are right. */
async function checkContent(rig: Rig, { name, endpoint }: Target): Promise<void> {
  for (const [path, expected] of [[SMALL_PATH, rig.digests.small] as const, [LARGE_PATH, rig.digests.large] as const]) {
    const digest = await fetchDigest(rig.processes, endpoint, path);
    if (digest !== expected) throw new CulvertError('internal_error', `${name} serves other bytes for ${path}`);
  }
  console.log(`${name}: both files have the right SHA-256`);
}

function conclude(report: Report, { json, markdown, minShare }: BenchOptions): void {
  console.log(`\n${reportText(report)}`);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, undefined, 2)}\n`);
  if (markdown) writeResults(join(repositoryRoot(), 'loadtest', 'README.md'), reportMarkdown(report));
  for (const { name, summary, ofDirect } of report.targets) {
    if (summary.errors > 0) throw new CulvertError('internal_error', `${name}: ${summary.errors} requests failed`);
    const share = ofDirect?.requests.median;
    if (name === 'tunnel' && minShare !== undefined && share !== undefined && !(share >= minShare)) {
      throw new CulvertError(
        'internal_error',
        `the tunnel reaches ${share.toFixed(3)} of direct, less than ${minShare}`,
      );
    }
  }
}

await runCommand(async () => {
  const given = options();
  const machine = describeMachine();
  if (machine.loadBefore >= BUSY_LOAD) {
    console.log(`other work is running (load ${machine.loadBefore.toFixed(2)}): trust ratios more than numbers`);
  }
  await withRig(given.workers, (rig) => bench(rig, given, machine));
});
