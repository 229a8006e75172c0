import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { takeCookie } from './cookies.ts';

describe('taking a cookie out', () => {
  for (const [what, fields, rest, values] of [
    ['that stands alone removes the field', ['Cookie', 'ours=1'], [], ['1']],
    ['at the start', ['Cookie', 'ours=1; a=2; b=3'], ['Cookie', 'a=2; b=3'], ['1']],
    ['in the middle', ['cookie', 'a=2; ours=1; b=3'], ['cookie', 'a=2; b=3'], ['1']],
    ['at the end', ['COOKIE', 'a=2;ours=1'], ['COOKIE', 'a=2'], ['1']],
    [
      'leaves odd bytes of others alone',
      ['Cookie', 'a;b=x=y;  c="q" ; ours=1;;d='],
      ['Cookie', 'a;b=x=y;  c="q" ;;d='],
      ['1'],
    ],
    [
      'that comes more than once',
      ['Cookie', 'ours=1; a=2; ours=', 'Cookie', 'ours=3'],
      ['Cookie', 'a=2'],
      ['1', '', '3'],
    ],
  ] as const) {
    test(what, () => {
      const around = ['Host', 'x', 'Accept', '*/*'];
      const headers = [...around.slice(0, 2), ...fields, ...around.slice(2)];
      const before = [...headers];
      const taken = takeCookie(headers, 'ours');
      assert.deepEqual(taken, { headers: [...around.slice(0, 2), ...rest, ...around.slice(2)], values });
      assert.deepEqual(headers, before);
    });
  }

  test('gives the same array where there is none, whatever resembles it', () => {
    const headers = ['Cookie', 'ours2=1; notours=1; a=ours=1; "ours=1"; Ours=1', 'X', 'ours=1', 'Set-Cookie', 'ours=1'];
    const taken = takeCookie(headers, 'ours');
    assert.equal(taken.headers, headers);
    assert.deepEqual(taken.values, []);
  });
});
