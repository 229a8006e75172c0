export interface Column {
  readonly title: string;
  readonly isNumber?: boolean;
  /** Left out first where there is no room for all; undefined: never. */
  readonly spare?: number;
}

const GAP = '  ';

/**
 * Rows in aligned columns. Where they are wider than `width`, those with the highest `spare` go first; what must stay is never cut, so
 * that a name can be copied. @param width characters; undefined: as wide as it gets
 */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[], width?: number): string[] {
  const clean = rows.map((row) => row.map(plain));
  const widths = columns.map(({ title }, at) => Math.max(title.length, ...clean.map((row) => row[at]?.length ?? 0)));
  let shown = columns.map((_, at) => at);
  const total = (): number => shown.reduce((sum, at) => sum + (widths[at] ?? 0) + GAP.length, -GAP.length);
  while (width !== undefined && total() > width) {
    const spare = shown.filter((at) => columns[at]?.spare !== undefined);
    if (spare.length === 0) break;
    const first = spare.reduce((a, b) => ((columns[b]?.spare ?? 0) >= (columns[a]?.spare ?? 0) ? b : a));
    shown = shown.filter((at) => at !== first);
  }
  const line = (cells: readonly string[]): string =>
    shown
      .map((at) => {
        const cell = cells[at] ?? '';
        return columns[at]?.isNumber ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0);
      })
      .join(GAP)
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...clean.map(line)];
}

/** Agents choose their version and ids; none of it may command the terminal. */
function plain(cell: string): string {
  return cell.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, '?');
}
