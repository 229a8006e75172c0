import type { Sample } from './measure.ts';
import type { Report, TargetReport } from './report.ts';
import type { Spread } from './statistics.ts';

type Row = readonly string[];

/** The report as tables for a terminal. */
export function reportText(report: Report): string {
  const sections = [
    [`medians of ${report.load.rounds} rounds (smallest to largest)`, '', ...columns(speedRows(report))],
    ['cost of the processes', '', ...columns(processRows(report))],
  ];
  return sections.map((lines) => lines.join('\n')).join('\n\n');
}

/** The report as Markdown, for the page that holds the last results. */
export function reportMarkdown(report: Report): string {
  const { machine, load } = report;
  const gigabytes = (machine.memoryBytes / 2 ** 30).toFixed(0);
  const facts =
    `${report.date.slice(0, 10)}; ${machine.cores} cores (${machine.cpu}), ${gigabytes} GiB, ${machine.system}, ` +
    `Node ${machine.node.slice(1)}; ${load.built ? 'built JavaScript' : 'TypeScript through tsx'}; ` +
    `${load.rounds} rounds, wrk for ${load.seconds} s with ${load.connections} connections, ` +
    `${load.workers} nginx worker${load.workers === 1 ? '' : 's'}; load before the run ${machine.loadBefore.toFixed(2)}.`;
  return [facts, '', ...markdownTable(speedRows(report)), '', ...markdownTable(processRows(report))].join('\n');
}

/** One line on a round, printed when it is over. */
export function roundLine(round: number, samples: ReadonlyMap<string, Sample>): string {
  const parts = [...samples].map(
    ([name, { requestsPerSecond, bytesPerSecond, errors }]) =>
      `${name} ${requestsPerSecond.toFixed(0)}/s ${(bytesPerSecond / 1e6).toFixed(0)} MB/s` +
      (errors > 0 ? ` ${errors} errors` : ''),
  );
  return `round ${round}: ${parts.toSorted().join('; ')}`;
}

const WITH_SPREAD = (value: Spread, show: (value: number) => string): string =>
  `${show(value.median)} (${show(value.min)}–${show(value.max)})`;

function speedRows(report: Report): Row[] {
  const rows: Row[] = [['', ...report.targets.map(({ name }) => name)]];
  const add = (title: string, cell: (target: TargetReport) => string) =>
    rows.push([title, ...report.targets.map(cell)]);
  add('requests/s', ({ summary }) => WITH_SPREAD(summary.requestsPerSecond, (value) => value.toFixed(0)));
  add('p50 ms', ({ summary }) => WITH_SPREAD(summary.p50, (value) => value.toFixed(2)));
  add('p99 ms', ({ summary }) => WITH_SPREAD(summary.p99, (value) => value.toFixed(2)));
  add('MB/s', ({ summary }) => WITH_SPREAD(summary.bytesPerSecond, (value) => (value / 1e6).toFixed(0)));
  add('share of direct, requests', ({ ofDirect }) => (ofDirect ? WITH_SPREAD(ofDirect.requests, percent) : '100%'));
  add('share of direct, transfer', ({ ofDirect }) => (ofDirect ? WITH_SPREAD(ofDirect.transfer, percent) : '100%'));
  add('failed requests', ({ summary }) => String(summary.errors));
  const { ofAgainst } = report;
  if (ofAgainst !== undefined) {
    const blanks = report.targets.slice(2).map(() => '');
    rows.push(['share of --against, requests', '', WITH_SPREAD(ofAgainst.requests, percent), ...blanks]);
    rows.push(['share of --against, transfer', '', WITH_SPREAD(ofAgainst.transfer, percent), ...blanks]);
  }
  return rows;
}

function processRows(report: Report): Row[] {
  const header = ['', 'CPU µs/request', 'CPU s/GB', 'CPU s in all', 'peak RSS MiB'];
  const rows = report.targets.flatMap(({ name, processes }) =>
    Object.entries(processes ?? {}).map(([role, used]) => [
      `${name}: ${role}`,
      WITH_SPREAD(used.perRequest, (value) => value.toFixed(0)),
      WITH_SPREAD(used.perGigabyte, (value) => value.toFixed(2)),
      used.cpuSeconds.toFixed(1),
      (used.peakRssBytes / 2 ** 20).toFixed(0),
    ]),
  );
  return [header, ...rows];
}

function percent(value: number): string {
  return `${(value * 100).toFixed(1)}%`;
}

function columns(rows: readonly Row[]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  '),
  );
}

function markdownTable(rows: readonly Row[]): string[] {
  const [header = [], ...rest] = rows;
  const line = (row: Row) => `| ${row.join(' | ')} |`;
  return [line(header), line(header.map((_, column) => (column === 0 ? '---' : '---:'))), ...rest.map(line)];
}
