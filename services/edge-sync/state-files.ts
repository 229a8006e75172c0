import { mkdirSync } from 'node:fs';
import { access, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CulvertError } from '../../shared/errors/codes.ts';
import { EMPTY_STATE_FILE } from './servers-state.ts';

/** What HAProxy reads when it starts. Each file is either the old one or the new one, whenever the machine stops. */

export type StateFile = 'owners.map' | 'nodes.map' | 'servers.state';

/** HAProxy does not start without its maps, so there is one of each before it has ever been reached. */
const EMPTY: Readonly<Record<StateFile, readonly string[]>> = {
  'owners.map': [],
  'nodes.map': [],
  'servers.state': EMPTY_STATE_FILE,
};
/** Bytes written at a time. */
const PIECE = 256 * 1024;

export class StateFiles {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** Makes the directory and the files that are missing. @throws CulvertError `invalid_config` */
  static async open(directory: string): Promise<StateFiles> {
    const files = new StateFiles(directory);
    try {
      mkdirSync(directory, { recursive: true });
      for (const [name, content] of Object.entries(EMPTY)) {
        const isThere = await access(join(directory, name)).then(
          () => true,
          () => false,
        );
        if (!isThere) await files.#write(name, content);
      }
      // Whether files can be replaced is known now, not when HAProxy needs them.
      await files.#write('.writable', []);
      await rm(join(directory, '.writable'));
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new CulvertError('invalid_config', `haproxy-state-dir: ${why}`, { cause: error });
    }
    return files;
  }

  write(name: StateFile, lines: readonly string[]): Promise<void> {
    return this.#write(name, lines);
  }

  async #write(name: string, lines: readonly string[]): Promise<void> {
    const path = join(this.#directory, name);
    const temporary = `${path}.new`;
    const file = await open(temporary, 'w', 0o644);
    try {
      let piece = '';
      for (const line of lines) {
        piece += `${line}\n`;
        if (piece.length < PIECE) continue;
        await file.write(piece);
        piece = '';
      }
      await file.write(piece);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  }
}
