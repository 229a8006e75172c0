import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CulvertError } from '../errors/codes.ts';
import {
  decodeRequestHead,
  decodeResponseHead,
  decodeTrailers,
  encodeRequestHead,
  encodeResponseHead,
  encodeTrailers,
} from './heads.ts';

/** The characters of RFC 9110: token (5.6.2), and field value with obs-text (5.5). */
const TCHAR = [..."!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"];
const FIELD_BYTES = range(0x20, 0x7e).concat(range(0x80, 0xff), ['\t']);

/** Objects as decoding makes them, with Object's prototype. */
const PLAIN = { noNullPrototype: true };

const token = fc.array(fc.constantFrom(...TCHAR), { minLength: 1, maxLength: 30 }).map((each) => each.join(''));
const value = fc.array(fc.constantFrom(...FIELD_BYTES), { maxLength: 60 }).map((each) => each.join(''));
const headers = fc.array(fc.tuple(token, value), { maxLength: 20 }).map((pairs) => pairs.flat());
const target = fc.array(fc.constantFrom(...range(0x21, 0x7e), ...range(0x80, 0xff)), { minLength: 1, maxLength: 60 });
const request = fc.record(
  {
    method: token,
    target: target.map((each) => each.join('')),
    tunnel: fc.stringMatching(/^[a-z0-9.-]{1,60}$/),
    meta: fc.stringMatching(/^(?:[a-z]+=[a-z0-9]+(?: [a-z]+=[a-z0-9]+)*)?$/),
    headers,
  },
  PLAIN,
);
const response = fc.record({ status: fc.integer({ min: 100, max: 999 }), reason: value, headers }, PLAIN);

describe('heads', () => {
  test('come back as they were, for every byte that HTTP allows', () => {
    fc.assert(fc.property(request, (head) => assert.deepEqual(decodeRequestHead(wire(encodeRequestHead(head))), head)));
    fc.assert(
      fc.property(response, (head) => assert.deepEqual(decodeResponseHead(wire(encodeResponseHead(head))), head)),
    );
    fc.assert(fc.property(headers, (list) => assert.deepEqual(decodeTrailers(wire(encodeTrailers(list))), list)));
  });

  test('carry each single byte of a field value and each token character of a name', () => {
    const list = [...FIELD_BYTES.flatMap((char) => ['x', char]), ...TCHAR.flatMap((char) => [char, ''])];
    assert.deepEqual(decodeTrailers(wire(encodeTrailers(list))), list);
  });

  test('are read from any text without another error than invalid_frame', () => {
    const char = fc.oneof(
      fc.constantFrom('\n', '\n', '\r', '\0', ' ', '2', 'a'),
      fc.nat(255).map((code) => String.fromCharCode(code)),
    );
    const text = fc.array(char, { maxLength: 60 }).map((chars) => chars.join(''));
    fc.assert(
      fc.property(text, (input) => {
        for (const decode of [decodeRequestHead, decodeResponseHead, decodeTrailers]) {
          try {
            decode(input);
          } catch (error) {
            assert.ok(error instanceof CulvertError && error.code === 'invalid_frame', String(error));
          }
        }
      }),
      { numRuns: 3000 },
    );
  });

  test('cannot be forged by what stands in a field: what decodes encodes to the same text', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('\n', 'GET', '/', 'x', '', ' '), { maxLength: 14 }), (parts) => {
        const text = parts.join('');
        const head = attempt(() => decodeRequestHead(text));
        if (head !== undefined) assert.equal(encodeRequestHead(head), text);
      }),
      { numRuns: 2000 },
    );
  });

  const refused: [string, () => unknown][] = [
    ['a method with a space', () => decodeRequestHead('G T\n/\nt\n')],
    ['an empty method', () => decodeRequestHead('\n/\nt\n')],
    ['a target with a space', () => decodeRequestHead('GET\n/ \nt\n')],
    ['an empty target', () => decodeRequestHead('GET\n\nt\n')],
    ['three fields only', () => decodeRequestHead('GET\n/\nt')],
    ['a name without a value', () => decodeRequestHead('GET\n/\nt\n\nHost')],
    ['CR in a value', () => decodeRequestHead('GET\n/\nt\n\nHost\na\r')],
    ['NUL in a value', () => decodeResponseHead('200\nOK\nX\n\0')],
    ['a colon in a name', () => decodeResponseHead('200\nOK\nX:\nv')],
    ['a status below 100', () => decodeResponseHead('99\n')],
    ['a status above 999', () => decodeResponseHead('1000\n')],
    ['a status that is no whole number', () => decodeResponseHead('200.5\n')],
    ['no status', () => decodeResponseHead('\nOK')],
    ['a lone trailer name', () => decodeTrailers('a')],
    ['an empty trailer name', () => decodeTrailers('\nv')],
  ];
  for (const [what, decode] of refused) {
    test(`with ${what} are refused`, () => assert.throws(decode, { code: 'invalid_frame' }));
  }
});

/** As the text is after its way over the wire: one byte for each character. */
function wire(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1');
}

function range(from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => String.fromCharCode(from + i));
}

function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}

test('a status that is not three plain digits is no response head', () => {
  for (const status of ['0x64', ' 200', '1e2', '+200', '200.0', '099', '1000', '']) {
    assert.throws(() => decodeResponseHead(`${status}\nOK`), { code: 'invalid_frame' }, status);
  }
});
