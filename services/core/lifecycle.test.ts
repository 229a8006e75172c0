import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { AGENT_SCHEMA } from '../../shared/config/agent-options.ts';
import { CORE_SCHEMA } from '../../shared/config/core-options.ts';
import { ERROR_CODES, isErrorCode } from '../../shared/errors/codes.ts';

const HERE = new URL('.', import.meta.url);
const ROOT = new URL('../../', HERE);
const PAGE = readFileSync(new URL('LIFECYCLE.md', HERE), 'utf8');

/** Cells of the tables' rows, with the back ticks around a whole cell taken off. */
const ROWS = PAGE.split('\n')
  .filter((line) => line.startsWith('|') && !/^\|[\s:|-]+\|$/.test(line))
  .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim())); // biome-ignore format: one step

/** Node's parser answers a head that is too slow; 408 says so better than the status of the code (RFC 9110 section 15.5.9). */
const OTHER_STATUS = new Map([['bad_request', '408']]);

/** What a request, a session or the start of a node runs through. */
const SOURCES = [
  'services/core/*.ts',
  'services/core/{edge,proxy,router,sessions}/*.ts',
  'services/agent/{*,forward/*}.ts',
  'shared/protocol/*.ts',
];

describe('LIFECYCLE.md', () => {
  test('names only files that exist', () => {
    const named = [...PAGE.matchAll(/`([\w/.-]+\.ts)`/g)].map(([, path = '']) => path);
    assert.ok(named.length > 100);
    for (const path of named) assert.ok(existsSync(fileOf(path)), path);
  });

  test('names only classes and functions that stand in the file beside them', () => {
    let checked = 0;
    for (const row of ROWS) {
      const at = row.findIndex((cell) => /^`[\w/.-]+\.ts`$/.test(cell));
      if (at < 0) continue;
      const path = bare(row[at]);
      const source = readFileSync(fileOf(path), 'utf8');
      const [first = '', member] = bare(row[at + 1]).split('.');
      const definitions = member === undefined ? [first] : [first, member];
      for (const name of definitions) assert.match(source, definition(name), `${name} in ${path}`);
      checked += 1;
    }
    assert.ok(checked > 100);
  });

  test('gives each code the status of the table of errors', () => {
    let checked = 0;
    for (const row of ROWS) {
      const code = bare(row[1]);
      if (!/^`[a-z]+_?[a-z_]*`$/.test(row[1] ?? '') || /\.ts$/.test(code)) continue;
      if (row.length === 6 || row.length === 5) checked += 1;
      if (row.length === 6) {
        assert.ok(isErrorCode(code), code);
        assert.ok([String(ERROR_CODES[code].status), OTHER_STATUS.get(code)].includes(row[2]), `${code}: ${row[2]}`);
      } else if (row[2]?.endsWith('.ts`')) {
        assert.ok(isErrorCode(code), code);
      }
    }
    assert.ok(checked > 60);
  });

  test('leaves out no code that the sources use', () => {
    const used = new Set<string>();
    for (const path of globSync(SOURCES, { cwd: ROOT })) {
      if (path.endsWith('.test.ts')) continue;
      for (const [, word = ''] of readFileSync(new URL(path, ROOT), 'utf8').matchAll(/'([a-z_]+)'/g)) {
        if (isErrorCode(word)) used.add(word);
      }
    }
    assert.ok(used.size > 20);
    assert.deepEqual(
      [...used].filter((code) => !PAGE.includes(`\`${code}\``)),
      [],
    );
  });

  test('gives each option its default', () => {
    const defaults = new Map<string, unknown>(
      [...Object.entries(AGENT_SCHEMA.options), ...Object.entries(CORE_SCHEMA.options)].map(([key, option]) => [
        key,
        option.default,
      ]),
    );
    const limits = ROWS.filter(
      (row) => row.length === 5 && /^`[a-z-]+`$/.test(row[1] ?? '') && row[3]?.endsWith('.ts`'),
    );
    assert.ok(limits.length > 12);
    for (const [, option, stated = ''] of limits) {
      const written = stated === 'none' ? '0' : stated.replaceAll(/[ ,]/g, '');
      assert.equal(written, defaults.get(bare(option)), bare(option));
    }
  });
});

function fileOf(path: string): URL {
  return new URL(path, /^(?:services|shared)\//.test(path) ? ROOT : HERE);
}

function bare(cell = ''): string {
  return cell.replace(/^`(.*)`$/, '$1');
}

function definition(name: string): RegExp {
  return /^[A-Z]/.test(name)
    ? new RegExp(`^(?:export )?(?:abstract )?class ${name}\\b`, 'm')
    : new RegExp(`^ *(?:export |async |function |override |protected )*${name}(?:<.*>)?\\(`, 'm');
}
