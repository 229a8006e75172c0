/**
 * Where `share` of the observations lie below, with even spread inside a bucket assumed, as Prometheus' histogram_quantile does. What
 * lies above all bounds counts as the highest bound. 0 without observations.
 * @param bounds upper bounds of the buckets, rising
 * @param counts one for each bucket and one for what lies above all; not cumulative
 * @param share 0 ≤ x ≤ 1
 */
export function quantile(bounds: readonly number[], counts: Float64Array, share: number): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const rank = share * total;
  let below = 0;
  for (const [bucket, bound] of bounds.entries()) {
    const count = counts[bucket] ?? 0;
    if (count > 0 && below + count >= rank) {
      const lower = bounds[bucket - 1] ?? 0;
      return lower + (bound - lower) * ((rank - below) / count);
    }
    below += count;
  }
  return total === 0 ? 0 : (bounds.at(-1) ?? 0);
}
