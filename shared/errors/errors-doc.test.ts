import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { CulvertError, codeFromWire, ERROR_CODES, type ErrorCode, isErrorCode } from './codes.ts';

const CODES = Object.keys(ERROR_CODES).filter(isErrorCode);

/** The cells of each row of the table in ERRORS.md. */
function documentedRows(): string[][] {
  const text = readFileSync(new URL('ERRORS.md', import.meta.url), 'utf8');
  return text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').slice(1, -1).map((cell) => cell.trim())); // biome-ignore format: one step
}

describe('ERRORS.md', () => {
  test('says of each code what the table says, and names no other code', () => {
    const documented = documentedRows().map((cells) => cells.slice(0, 5));
    const expected: string[][] = CODES.map((code) => {
      const { status, wire, retryable, meaning } = ERROR_CODES[code];
      return [`\`${code}\``, String(status), String(wire), retryable ? 'yes' : 'no', meaning];
    });
    assert.deepEqual(
      documented,
      expected.toSorted((a, b) => Number(a[2]) - Number(b[2])),
    );
  });

  test('tells for each code what can be done', () => {
    for (const cells of documentedRows()) {
      assert.equal(cells.length, 6, cells.join());
      assert.match(cells[5] ?? '', /^[A-Z].{15,}\.$/, cells.join());
    }
  });
});

describe('the table of errors', () => {
  test('has one wire number for each code, which leads back to it', () => {
    assert.equal(new Set(CODES.map((code) => ERROR_CODES[code].wire)).size, CODES.length);
    for (const code of CODES) {
      const { wire, status } = ERROR_CODES[code];
      assert.ok(Number.isInteger(wire) && wire >= 1 && wire <= 65535, code);
      assert.ok(Number.isInteger(status) && status >= 400 && status <= 599, code);
      assert.equal(codeFromWire(wire), code);
    }
    for (const unknown of [0, 9, 65535, -1, Number.NaN]) assert.equal(codeFromWire(unknown), 'internal_error');
  });

  test('does not take the properties of every object for codes', () => {
    for (const value of ['constructor', 'toString', '', 'INVALID_TOKEN', 1, undefined]) {
      assert.equal(isErrorCode(value), false);
    }
  });

  test('gives an error its status, its meaning as the message, and its cause', () => {
    const code: ErrorCode = 'agent_offline';
    const plain = new CulvertError(code);
    assert.deepEqual([plain.status, plain.retryable, plain.message], [502, true, ERROR_CODES.agent_offline.meaning]);
    const cause = new Error('why');
    const told = new CulvertError('timeout', 'after 30 s', { cause });
    assert.deepEqual([told.message, told.cause, told.name], ['after 30 s', cause, 'CulvertError']);
  });
});
