/** The entries of `name=value` pairs with commas, or in a file of a list of such pairs or of a map. A name may be missing. */
export function* namedEntries(raw: unknown): Iterable<readonly [string | undefined, unknown]> {
  if (typeof raw === 'string') {
    for (const entry of raw.split(',')) yield pairOf(entry.trim());
  } else if (Array.isArray(raw)) {
    for (const entry of raw as unknown[]) yield typeof entry === 'string' ? pairOf(entry) : [undefined, entry];
  } else if (typeof raw === 'object' && raw !== null) {
    yield* Object.entries(raw);
  } else {
    yield [undefined, raw];
  }
}

function pairOf(entry: string): readonly [string | undefined, string] {
  const at = entry.indexOf('=');
  return at < 0 ? [undefined, entry] : [entry.slice(0, at).trim(), entry.slice(at + 1).trim()];
}
