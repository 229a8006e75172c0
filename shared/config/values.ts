import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { Refusal, type ValueType, valueType } from './option.ts';

/** Value types that know nothing of the network. Each refuses what it does not understand; none guesses. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const DURATION_UNITS = { d: DAY, h: HOUR, m: MINUTE, s: SECOND, ms: 1 } as const;
const BYTE_UNITS = { GiB: 1024 ** 3, MiB: 1024 ** 2, KiB: 1024, GB: 1e9, MB: 1e6, KB: 1e3, B: 1 } as const;
const MAX_SECRET_FILE_BYTES = 64 * 1024;

/** Quotes a refused value for a message: escaped, on one line, 60 characters at most. */
export function quote(raw: unknown): string {
  // Not written out: a map of a YAML file may contain itself.
  if (typeof raw === 'object' && raw !== null) return Array.isArray(raw) ? 'a list' : 'a map';
  const text = JSON.stringify(raw) ?? String(raw);
  return text.length <= 60 ? text : `${text.slice(0, 57)}…`;
}

/** Text that matches `pattern`. Numbers are refused: a YAML number has lost its leading zeros and long digits. */
export function text(placeholder: string, expects: string, pattern = /\S/): ValueType<string> {
  return valueType({
    placeholder,
    expects,
    decode: (raw) => {
      if (typeof raw !== 'string') return notText(raw);
      return pattern.test(raw) ? raw : new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: (value) => value,
  });
}

/** Text of at least `minBytes` bytes in UTF-8. A refusal never repeats the value. */
export function secretText(minBytes: number, tooShort: string): ValueType<string> {
  return valueType({
    placeholder: '<secret>',
    expects: minBytes > 1 ? `a secret of at least ${minBytes} bytes` : 'a secret',
    decode: (raw) => (typeof raw === 'string' ? longEnough(raw, minBytes, tooShort) : notText(raw)),
    encode: (value) => value,
  });
}

/** A secret kept in a file. `content` is the file's text without white space around it. */
export interface SecretFile {
  /** Absolute. */
  readonly path: string;
  readonly content: string;
}

export function secretFile(minBytes: number, tooShort: string): ValueType<SecretFile> {
  return valueType({
    placeholder: '<file>',
    expects: 'a readable file that holds only the secret',
    decode: (raw) => {
      const path = readablePath(raw);
      if (path instanceof Refusal) return path;
      const content = readFileSync(path);
      if (content.length > MAX_SECRET_FILE_BYTES) return new Refusal(`${quote(raw)} is larger than 64KiB`);
      const secret = longEnough(content.toString('utf8').trim(), minBytes, tooShort);
      return secret instanceof Refusal ? secret : { path, content: secret };
    },
    encode: (value) => value.path,
  });
}

/** An existing file that this process can read; becomes its absolute path. */
export function readableFile(): ValueType<string> {
  return valueType({
    placeholder: '<file>',
    expects: 'a readable file',
    decode: readablePath,
    encode: (value) => value,
  });
}

/** A directory, which need not exist yet; becomes its absolute path. */
export function directory(): ValueType<string> {
  return valueType({
    placeholder: '<directory>',
    expects: 'a directory',
    decode: (raw) => (typeof raw === 'string' && raw !== '' ? resolve(raw) : notText(raw)),
    encode: (value) => value,
  });
}

export function boolean(): ValueType<boolean> {
  return valueType({
    expects: 'true or false',
    decode: (raw) => {
      if (raw === true || raw === 'true') return true;
      if (raw === false || raw === 'false') return false;
      return new Refusal(`${quote(raw)} is not true or false`);
    },
    encode: (value) => value,
  });
}

/** An integer from `min` to `max`, both included. */
export function integer(min: number, max: number): ValueType<number> {
  const expects = `an integer from ${min} to ${max}`;
  return valueType({
    placeholder: '<number>',
    expects,
    decode: (raw) => {
      const value = typeof raw === 'string' && /^-?\d{1,15}$/.test(raw) ? Number(raw) : raw;
      const accepted = typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max;
      return accepted ? value : new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: (value) => value,
  });
}

export function oneOf<const T extends string>(choices: readonly T[]): ValueType<T> {
  return valueType({
    placeholder: `<${choices.join('|')}>`,
    expects: `one of ${choices.join(', ')}`,
    decode: (raw) =>
      choices.find((choice) => choice === raw) ?? new Refusal(`${quote(raw)} is not one of ${choices.join(', ')}`),
    encode: (value) => value,
  });
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

export function logLevel(): ValueType<LogLevel> {
  return oneOf(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']);
}

/** A duration, in milliseconds. `min` and `max` are written durations, both included. */
export function duration(min: string, max: string): ValueType<number> {
  const expects = `a duration from ${min} to ${max}`;
  const least = parseDuration(min) ?? 0;
  const most = parseDuration(max) ?? Number.MAX_SAFE_INTEGER;
  return valueType({
    placeholder: '<duration>',
    expects,
    decode: (raw) => {
      if (isPlainNumber(raw)) return new Refusal(`${quote(raw)} has no unit: write ${raw}s or ${raw}ms`);
      const value = typeof raw === 'string' ? parseDuration(raw) : raw === 0 ? 0 : undefined;
      if (value === undefined) return new Refusal(`${quote(raw)} is not a duration: write 500ms, 30s, 5m or 1h`);
      return value >= least && value <= most ? value : new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: formatDuration,
  });
}

/** A number of bytes. `min` and `max` are written sizes, both included. KiB, MiB and GiB are powers of 1024. */
export function bytes(min: string, max: string): ValueType<number> {
  const expects = `a size from ${min} to ${max}`;
  const least = parseBytes(min) ?? 0;
  const most = parseBytes(max) ?? Number.MAX_SAFE_INTEGER;
  return valueType({
    placeholder: '<size>',
    expects,
    decode: (raw) => {
      const value = typeof raw === 'string' || typeof raw === 'number' ? parseBytes(String(raw)) : undefined;
      if (value === undefined) return new Refusal(`${quote(raw)} is not a size: write 512, 64KiB or 10MB`);
      return value >= least && value <= most ? value : new Refusal(`${quote(raw)} is not ${expects}`);
    },
    encode: (value) => ((value % 1024 !== 0 && value % 1000 !== 0) || value === 0 ? value : formatBytes(value)),
  });
}

/** A list of one type: a file's list, or text with commas. Refused when empty or when an entry comes twice. */
export function listOf<T>(element: ValueType<T>, placeholder: string): ValueType<readonly T[]> {
  return valueType<readonly T[]>({
    placeholder,
    expects: `a list, with commas, of which each is ${element.expects}`,
    list: true,
    decode: (raw) => {
      const entries: unknown[] = typeof raw === 'string' ? raw.split(',').map((entry) => entry.trim()) : toArray(raw);
      const values: T[] = [];
      const written = new Set<unknown>();
      for (const entry of entries) {
        const parsed = element.schema.safeDecode(entry);
        if (!parsed.success) return new Refusal(parsed.error.issues[0]?.message ?? `${quote(entry)} is not valid`);
        const form = element.schema.encode(parsed.data);
        if (written.has(form)) return new Refusal(`${quote(form)} is listed twice`);
        written.add(form);
        values.push(parsed.data);
      }
      return values.length > 0 ? values : new Refusal('the list is empty: remove the option instead');
    },
    encode: (values) => values.map((value) => element.schema.encode(value)),
  });
}

/** Milliseconds, or undefined when `written` is not a duration. `1m30s` adds up. */
export function parseDuration(written: string): number | undefined {
  if (written === '0') return 0;
  if (!/^(\d{1,9}(\.\d{1,3})?(ms|[dhms]))+$/.test(written)) return undefined;
  let total = 0;
  for (const [, amount, unit] of written.matchAll(/([\d.]+)(ms|[dhms])/g)) {
    total += Number(amount) * DURATION_UNITS[unit as keyof typeof DURATION_UNITS];
  }
  return Math.round(total);
}

export function formatDuration(milliseconds: number): string {
  if (milliseconds === 0) return '0s';
  const unit = Object.entries(DURATION_UNITS).find(([, size]) => milliseconds % size === 0) ?? ['ms', 1];
  return `${milliseconds / unit[1]}${unit[0]}`;
}

/** Bytes, or undefined when `written` is not a size. */
export function parseBytes(written: string): number | undefined {
  const match = /^(\d{1,15}(?:\.\d{1,6})?) ?([kmg]i?b|b)?$/i.exec(written);
  if (match === null) return undefined;
  const unit = match[2]?.toLowerCase() ?? 'b';
  const size = Object.entries(BYTE_UNITS).find(([name]) => name.toLowerCase() === unit)?.[1] ?? 1;
  const total = Number(match[1]) * size;
  return Number.isSafeInteger(total) ? total : undefined;
}

export function formatBytes(size: number): string {
  if (size === 0) return '0';
  const unit = Object.entries(BYTE_UNITS).find(([, each]) => size % each === 0) ?? ['B', 1];
  return unit[1] === 1 ? String(size) : `${size / unit[1]}${unit[0]}`;
}

function isPlainNumber(raw: unknown): raw is string | number {
  return (typeof raw === 'number' && raw !== 0) || (typeof raw === 'string' && /^[1-9]\d*$/.test(raw));
}

function toArray(raw: unknown): unknown[] {
  return Array.isArray(raw) ? raw : [raw];
}

function notText(raw: unknown): Refusal {
  return new Refusal(typeof raw === 'number' ? 'must be text: put the number in quotes' : 'must be text');
}

function longEnough(secret: string, minBytes: number, tooShort: string): string | Refusal {
  const size = Buffer.byteLength(secret, 'utf8');
  if (size === 0) return new Refusal('is empty');
  return size >= minBytes ? secret : new Refusal(`has ${size} bytes: ${tooShort}`);
}

function readablePath(raw: unknown): string | Refusal {
  if (typeof raw !== 'string' || raw === '') return notText(raw);
  const path = resolve(raw);
  try {
    accessSync(path, constants.R_OK);
    return statSync(path).isDirectory() ? new Refusal(`${quote(raw)} is a directory, not a file`) : path;
  } catch (error) {
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    return new Refusal(missing ? `${quote(raw)} does not exist` : `${quote(raw)} cannot be read`);
  }
}
