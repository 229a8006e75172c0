/** Resolves at the first SIGINT or SIGTERM. A second one ends the process at once (see `exitCodeOf`). */
export function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
}
