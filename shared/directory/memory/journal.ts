import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { CulvertError } from '../../errors/codes.ts';
import { KINDS, type Kind } from '../records.ts';
import type { StoredRecord } from '../replica.ts';

/** A change of one record; without `stored` it was removed. */
export interface JournalEntry {
  readonly kind: Kind;
  readonly id: string;
  readonly stored: StoredRecord | undefined;
}

/** `[kind, id, version, created at, fields or null]`, one line each, behind a first line that says what the file is. */
const Line = z.tuple([z.enum(KINDS), z.string(), z.number(), z.number(), z.json()]);
const TITLE = JSON.stringify({ culvert: 'directory', version: 1 });
/** Lines beyond twice the records that are left of them, before the file is written anew at the start. */
const SLACK = 1000;

/** The records of a node without Redis, in a file: each change is on the disk before anybody hears that it was made. */
export class Journal {
  readonly #path: string;
  readonly #file: FileHandle;
  #size: number;

  /**
   * Opens or creates the file.
   * @param take gets every change that is in it, oldest first
   * @throws CulvertError `invalid_config` when it cannot be used: starting without what it refuses would let that in
   */
  static async open(path: string, take: (entry: JournalEntry) => void): Promise<Journal> {
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      const { entries, lines, size } = await load(path);
      for (const entry of entries.values()) take(entry);
      const live = [...entries.values()].filter(({ stored }) => stored !== undefined);
      if (lines > 2 * live.length + SLACK) return new Journal(path, ...(await rewrite(path, live)));
      const file = await open(path, 'a', 0o600);
      // The end of a line that a crash cut off goes, or the next one would be added to it.
      await file.truncate(size);
      const journal = new Journal(path, file, size);
      if (size === 0) await journal.#append(`${TITLE}\n`);
      return journal;
    } catch (error) {
      if (error instanceof CulvertError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new CulvertError('invalid_config', `state-dir: ${path} cannot be used: ${why}`, { cause: error });
    }
  }

  private constructor(path: string, file: FileHandle, size: number) {
    this.#path = path;
    this.#file = file;
    this.#size = size;
  }

  /** Resolves when the change is on the disk. One at a time. @throws CulvertError `registry_unavailable` */
  async append(entry: JournalEntry): Promise<void> {
    try {
      await this.#append(lineOf(entry));
    } catch (error) {
      // Half a line may stand there now.
      await this.#file.truncate(this.#size).catch(() => {});
      const why = error instanceof Error ? error.message : String(error);
      throw new CulvertError('registry_unavailable', `${this.#path} cannot be written: ${why}`, { cause: error });
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async #append(text: string): Promise<void> {
    await this.#file.appendFile(text);
    await this.#file.datasync();
    this.#size += Buffer.byteLength(text);
  }
}

interface Loaded {
  /** The last of each record. */
  readonly entries: ReadonlyMap<string, JournalEntry>;
  readonly lines: number;
  /** Bytes up to the end of the last whole line. */
  readonly size: number;
}

async function load(path: string): Promise<Loaded> {
  const content = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  });
  const size = content.lastIndexOf(0x0a) + 1;
  const [title, ...lines] = content.toString('utf8', 0, size).split('\n').slice(0, -1);
  if (title !== undefined && title !== TITLE) throw damaged(path, 1);
  const entries = new Map<string, JournalEntry>();
  for (const [at, line] of lines.entries()) {
    const entry = parse(line);
    if (entry === undefined) throw damaged(path, at + 2);
    const key = `${entry.kind} ${entry.id}`;
    // In the order of the last change.
    entries.delete(key);
    entries.set(key, entry);
  }
  return { entries, lines: lines.length, size };
}

function parse(line: string): JournalEntry | undefined {
  try {
    const [kind, id, version, createdAt, fields] = Line.parse(JSON.parse(line));
    const stored = fields === null ? undefined : { version, createdAt, json: JSON.stringify(fields) };
    return { kind, id, stored };
  } catch {
    return undefined;
  }
}

function lineOf({ kind, id, stored }: JournalEntry): string {
  const { version = 0, createdAt = 0, json = 'null' } = stored ?? {};
  return `[${JSON.stringify(kind)},${JSON.stringify(id)},${version},${createdAt},${json}]\n`;
}

/** A file with the records that are left, in place of the old one in one step. */
async function rewrite(path: string, live: readonly JournalEntry[]): Promise<[FileHandle, number]> {
  const fresh = `${path}.new`;
  const text = `${TITLE}\n${live.map(lineOf).join('')}`;
  const file = await open(fresh, 'w', 0o600);
  await file.writeFile(text);
  await file.sync();
  await file.close();
  await rename(fresh, path);
  const directory = await open(dirname(path), 'r');
  await directory.sync();
  await directory.close();
  return [await open(path, 'a', 0o600), Buffer.byteLength(text)];
}

function damaged(path: string, line: number): CulvertError {
  return new CulvertError(
    'invalid_config',
    `state-dir: line ${line} of ${path} is damaged: restore the file from a backup, or remove it and with it all accounts, keys and revocations`,
  );
}
