/** The label that stands for all that are not among the largest. */
const OTHER = 'other';

/**
 * The `n` largest entries, largest first, then one for the sum of all others when there are any, so that a label with
 * unbounded values (accounts) makes a bounded number of series. Equal values are ordered by label, so that scrapes agree.
 * An entry whose own label is `other` is counted among the others: two series of one name would break the scrape.
 */
export function topN(entries: Iterable<readonly [label: string, value: number]>, n: number): [string, number][] {
  const top: (readonly [string, number])[] = [];
  let rest = 0;
  let hasRest = false;
  for (const entry of entries) {
    if (entry[0] === OTHER) {
      rest += entry[1];
      hasRest = true;
      continue;
    }
    const last = top.at(-1);
    if (top.length === n && (last === undefined || !isBefore(entry, last))) {
      rest += entry[1];
      hasRest = true;
      continue;
    }
    let at = top.length;
    for (let before = top[at - 1]; before !== undefined && isBefore(entry, before); before = top[at - 1]) at -= 1;
    top.splice(at, 0, entry);
    if (top.length > n) {
      rest += top.pop()?.[1] ?? 0;
      hasRest = true;
    }
  }
  const result = top.map(([label, value]): [string, number] => [label, value]);
  if (hasRest) result.push([OTHER, rest]);
  return result;
}

function isBefore(a: readonly [string, number], b: readonly [string, number]): boolean {
  return a[1] === b[1] ? a[0] < b[0] : a[1] > b[1];
}
