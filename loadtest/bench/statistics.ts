/** The middle value; the mean of the two in the middle when their number is even. Throws RangeError for no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.floor((sorted.length - 1) / 2)];
  if (upper === undefined || lower === undefined) throw new RangeError('median of no values');
  return (lower + upper) / 2;
}

export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** Throws RangeError for no values. */
export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Each value over the other of the same round. Rounds drift together (clock speed, neighbours on the machine), so that
 * the spread of ratios is narrower than what two medians divided would be. Throws RangeError when the lengths differ.
 */
export function ratios(values: readonly number[], references: readonly number[]): number[] {
  if (values.length !== references.length) throw new RangeError('ratios need pairs');
  return values.map((value, index) => value / (references[index] ?? Number.NaN));
}
