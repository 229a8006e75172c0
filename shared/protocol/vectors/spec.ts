import { readFileSync } from 'node:fs';

/** Cells of one row, without the white space around them. */
export type Row = readonly string[];

const TEXT = readFileSync(new URL('../PROTOCOL.md', import.meta.url), 'utf8');

/** The text of the section of PROTOCOL.md that has this title, up to the next title of the same or a higher level. */
export function section(title: string): string {
  const lines = TEXT.split('\n');
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ (?:[\d.]+ )?/, '') === title);
  if (start < 0) throw new Error(`PROTOCOL.md has no section "${title}"`);
  const level = (lines[start] ?? '').indexOf(' ');
  const end = lines.findIndex((line, at) => at > start && /^#+ /.test(line) && line.indexOf(' ') <= level);
  return lines.slice(start, end < 0 ? undefined : end).join('\n');
}

/** The rows of the section's tables, without their titles. */
export function rows(title: string): Row[] {
  const lines = section(title).split('\n');
  return lines
    .filter((line, at) => line.startsWith('|') && !isRule(line) && !isRule(lines[at + 1]))
    .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim().replace(/^`(.*)`$/, '$1'))); // biome-ignore format: one step
}

/** The line of dashes under the titles of a table. */
function isRule(line: string | undefined): boolean {
  return line !== undefined && /^\|[\s:|-]+\|$/.test(line);
}
