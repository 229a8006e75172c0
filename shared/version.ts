import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** Version of the package that this file belongs to, whether it runs from the sources or from the build. */
export const VERSION: string = packageVersion();

function packageVersion(): string {
  for (let directory = import.meta.dirname; directory !== dirname(directory); directory = dirname(directory)) {
    try {
      const manifest: unknown = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
      if (typeof manifest === 'object' && manifest !== null && 'name' in manifest && 'version' in manifest) {
        if (manifest.name === 'culvert') return String(manifest.version);
      }
    } catch {
      // None here: look one directory up.
    }
  }
  return 'unknown';
}
