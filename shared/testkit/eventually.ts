import { setTimeout as wait } from 'node:timers/promises';

/** Between two looks, milliseconds. */
const PAUSE = 10;

/**
 * Resolves with the first result of `look` that is not undefined. For states that no event announces, such as a metric.
 * @param within milliseconds. Default 5,000
 * @throws Error that names `what`, after `within`
 */
export async function eventually<T>(
  what: string,
  look: () => T | undefined | Promise<T | undefined>,
  within = 5000,
): Promise<T> {
  const deadline = performance.now() + within;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new Error(`not within ${within} ms: ${what}`);
    await wait(PAUSE);
  }
}

/** As `eventually`, for a condition. @returns milliseconds that it took */
export async function until(what: string, holds: () => boolean | Promise<boolean>, within?: number): Promise<number> {
  const started = performance.now();
  await eventually(what, async () => ((await holds()) ? true : undefined), within);
  return performance.now() - started;
}
