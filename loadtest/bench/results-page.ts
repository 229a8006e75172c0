import { readFileSync, writeFileSync } from 'node:fs';
import { CulvertError } from '../../shared/errors/codes.ts';

const BEGIN = '<!-- results: written by bench --markdown -->';
const END = '<!-- end of results -->';

/** Replaces the results in a page. Throws CulvertError `internal_error` when it has no place for them. */
export function writeResults(file: string, markdown: string): void {
  writeFileSync(file, replaceResults(readFileSync(file, 'utf8'), markdown));
}

export function replaceResults(page: string, markdown: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new CulvertError('internal_error', `the page lacks "${BEGIN}" and "${END}"`);
  return `${page.slice(0, begin + BEGIN.length)}\n\n${markdown}\n\n${page.slice(end)}`;
}
