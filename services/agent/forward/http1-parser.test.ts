import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { FlatHeaders, ResponseHead } from '../../../shared/protocol/heads.ts';
import { ResponseParser } from './http1-parser.ts';

interface Outcome {
  heads: ResponseHead[];
  body: string;
  ended: number;
  trailers: FlatHeaders | undefined;
  failed: boolean;
  reusable: boolean;
  finished: boolean;
  calls: number;
}

/** Feeds the pieces, then the service's end of its half. */
function parse(pieces: readonly string[], noBody = false): Outcome {
  const parser = new ResponseParser();
  const outcome: Outcome = {
    heads: [],
    body: '',
    ended: 0,
    trailers: undefined,
    failed: false,
    reusable: false,
    finished: false,
    calls: 0,
  };
  const take = (chunk: Buffer | undefined, end: boolean) => {
    outcome.calls++;
    assert.equal(outcome.ended, 0, 'nothing follows the end');
    outcome.body += chunk?.toString('latin1') ?? '';
    if (end) outcome.ended++;
  };
  parser.reset(
    {
      onResponseHead(head, body, end) {
        outcome.heads.push(head);
        take(body, end);
      },
      onResponseData: take,
      onResponseTrailers(headers) {
        take(undefined, true);
        outcome.trailers = headers;
      },
    },
    noBody,
  );
  for (const piece of pieces) {
    const bytes = Buffer.from(piece, 'latin1');
    parser.execute(bytes, bytes.length);
  }
  outcome.failed = parser.error !== undefined;
  outcome.reusable = parser.reusable;
  outcome.finished = parser.finish();
  return outcome;
}

const ok = (rest: string) => `HTTP/1.1 200 OK\r\n${rest}`;

/** Splits `text` at pseudo-random places that `cuts` gives. */
function split(text: string, cuts: readonly number[]): string[] {
  const places = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((place, i) => text.slice(place, places[i] ?? text.length));
}

describe('HTTP/1.1 response parser', () => {
  test('a whole response with Content-Length is one call', () => {
    const { calls, body, ended, heads, reusable } = parse([ok('Content-Length: 5\r\nX-A: 1\r\nx-a:\t2 \r\n\r\nhello')]);
    assert.deepEqual(heads, [{ status: 200, reason: 'OK', headers: ['Content-Length', '5', 'X-A', '1', 'x-a', '2'] }]);
    assert.deepEqual({ calls, body, ended, reusable }, { calls: 1, body: 'hello', ended: 1, reusable: true });
  });

  test('a whole response of one chunk is one call, and its Transfer-Encoding is of this hop', () => {
    const { calls, body, heads, reusable } = parse([ok('Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n')]);
    assert.deepEqual(heads[0]?.headers, []);
    assert.deepEqual({ calls, body, reusable }, { calls: 1, body: 'hello', reusable: true });
  });

  test('chunk extensions are skipped and trailers end the message', () => {
    const text = ok(
      'Transfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\n0A ;x\r\n0123456789\r\n000\r\nX-T: 1\r\nHost: no\r\n\r\n',
    );
    const { body, trailers, ended, finished } = parse([text]);
    assert.deepEqual(
      { body, trailers, ended, finished },
      { body: 'abc0123456789', trailers: ['X-T', '1'], ended: 1, finished: true },
    );
  });

  test('a body without framing ends with the connection, which is not used again', () => {
    const { body, ended, reusable, finished } = parse([ok('X: y\r\n\r\n'), 'some', 'thing']);
    assert.deepEqual(
      { body, ended, reusable, finished },
      { body: 'something', ended: 1, reusable: false, finished: true },
    );
  });

  test('HEAD, 204 and 304 have no body whatever their fields say', () => {
    for (const [text, noBody] of [
      [ok('Content-Length: 5\r\n\r\n'), true],
      [ok('Transfer-Encoding: chunked\r\n\r\n'), true],
      ['HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n', false],
      ['HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n', false],
    ] as const) {
      const { ended, body, reusable } = parse([text], noBody);
      assert.deepEqual({ ended, body, reusable }, { ended: 1, body: '', reusable: true }, text);
    }
    assert.deepEqual(parse(['HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n']).heads[0]?.headers, []);
  });

  test('interim heads come before the final one, and 17 of them are too many', () => {
    const hint = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n';
    const fine = parse([`${hint}HTTP/1.1 100 Continue\r\n\r\n${ok('Content-Length: 0\r\n\r\n')}`]);
    assert.deepEqual(
      fine.heads.map(({ status }) => status),
      [103, 100, 200],
    );
    assert.equal(fine.failed, false);
    assert.equal(parse([hint.repeat(16) + ok('Content-Length: 0\r\n\r\n')]).failed, false);
    assert.equal(parse([hint.repeat(17)]).failed, true);
  });

  test('bytes behind a 101 are raw and those in the same read are not lost', () => {
    const { heads, body, failed } = parse([
      `HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/9 \0`,
      '\r\nmore',
    ]);
    assert.deepEqual(heads[0]?.headers, ['Upgrade', 'x']);
    assert.deepEqual({ body, failed }, { body: 'HTTP/9 \0\r\nmore', failed: false });
  });

  test('fields of this hop are taken out, those that Connection names included', () => {
    const text = ok(
      'Connection: close, X-Hop\r\nKeep-Alive: timeout=7\r\nx-hop: 1\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n',
    );
    const { heads, reusable } = parse([text]);
    assert.deepEqual(heads[0]?.headers, ['Proxy-Authenticate', 'Basic', 'Content-Length', '0']);
    assert.equal(reusable, false);
  });

  test('HTTP/1.0 is kept alive only when it says so', () => {
    assert.equal(parse(['HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n']).reusable, false);
    assert.equal(parse(['HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n']).reusable, true);
  });

  test('bytes behind the end make the connection unusable', () => {
    const { reusable, body } = parse([`${ok('Content-Length: 1\r\n\r\n')}xy`]);
    assert.deepEqual({ reusable, body }, { reusable: false, body: 'x' });
  });

  test('equal Content-Lengths are one', () => {
    const { heads, body } = parse([ok('Content-Length: 2, 02\r\ncontent-length: 2\r\n\r\nab')]);
    assert.deepEqual(heads[0]?.headers, ['Content-Length', '2']);
    assert.equal(body, 'ab');
  });

  test('obs-text bytes of values and reasons survive, an empty reason may lack its space', () => {
    const { heads } = parse(['HTTP/1.1 200\r\nX: caf\xe9\tcr\xe8me\r\nContent-Length: 0\r\n\r\n']);
    assert.deepEqual(heads[0], { status: 200, reason: '', headers: ['X', 'caf\xe9\tcr\xe8me', 'Content-Length', '0'] });
  });

  for (const [what, text] of [
    ['another protocol', 'SSH-2.0-OpenSSH\r\n'],
    ['HTTP/2 in the status line', 'HTTP/2.0 200 OK\r\n\r\n'],
    ['HTTP/1.2', 'HTTP/1.2 200 OK\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\n\r\n'],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\n\r\n'],
    ['a status below 100', 'HTTP/1.1 099 OK\r\n\r\n'],
    ['NUL in the reason', 'HTTP/1.1 200 O\0K\r\n\r\n'],
    ['a folded header', ok('X: a\r\n b\r\n\r\n')],
    ['a folded first header', ok(' X: a\r\n\r\n')],
    ['white space before the colon', ok('X : a\r\n\r\n')],
    ['a name that is not a token', ok('X(y): a\r\n\r\n')],
    ['an empty name', ok(': a\r\n\r\n')],
    ['a line without colon', ok('Xa\r\n\r\n')],
    ['CR in a value', ok('X: a\rb\r\n\r\n')],
    ['LF in a value', ok('X: a\nContent-Length: 3\r\n\r\n')],
    ['NUL in a value', ok('X: a\0b\r\n\r\n')],
    ['lines that end in LF alone', 'HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n'],
    ['two lengths', ok('Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd')],
    ['a list of two lengths', ok('Content-Length: 3, 4\r\n\r\nabcd')],
    ['a length with a sign', ok('Content-Length: +3\r\n\r\nabc')],
    ['a hexadecimal length', ok('Content-Length: 0x3\r\n\r\nabc')],
    ['an empty length', ok('Content-Length:\r\n\r\nabc')],
    ['a length above 2^53', ok('Content-Length: 9007199254740993\r\n\r\nabc')],
    ['both framings', ok('Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n')],
    ['both framings the other way', ok('Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n')],
    ['another coding', ok('Transfer-Encoding: gzip, chunked\r\n\r\n')],
    ['chunked twice', ok('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n')],
    ['chunked three times', ok('Transfer-Encoding: chunked\r\n'.repeat(3).concat('\r\n'))],
    ['chunked in HTTP/1.0', 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
  ] as const) {
    test(`refuses ${what}`, () => {
      const { failed, heads } = parse([text]);
      assert.deepEqual({ failed, heads }, { failed: true, heads: [] });
    });
  }

  for (const [what, body] of [
    ['no digits', '\r\nabc'],
    ['an extension without size', ';a\r\nabc'],
    ['a sign', '-3\r\nabc'],
    ['a prefix', '0x3\r\nabc'],
    ['a bare LF', '3\nabc'],
    ['more data than its size', '3\r\nabcd\r\n0\r\n\r\n'],
    ['CR in an extension', '3;a\rb\r\nabc'],
    ['NUL in an extension', '3;a\0b\r\nabc'],
    ['a size above 2^53', '20000000000001\r\nabc'],
    ['a size of 17 digits', `${'0'.repeat(16)}3\r\nabc`],
    ['extensions above 16 KiB', `3;${'a'.repeat(17_000)}\r\nabc`],
    ['a folded trailer', '0\r\nX: a\r\n b\r\n\r\n'],
    ['a trailer without colon', '0\r\nX\r\n\r\n'],
  ] as const) {
    test(`refuses a chunk with ${what}`, () => {
      const { failed, ended } = parse([ok(`Transfer-Encoding: chunked\r\n\r\n${body}`)]);
      assert.deepEqual({ failed, ended }, { failed: true, ended: 0 });
    });
  }

  test('a head of 128 KiB is taken and one byte more is refused, however it arrives', () => {
    const frame = ok('X: \r\nContent-Length: 0\r\n\r\n');
    const filler = 'a'.repeat(128 * 1024 - frame.length);
    for (const [extra, failed] of [
      ['', false],
      ['a', true],
    ] as const) {
      const text = ok(`X: ${filler}${extra}\r\nContent-Length: 0\r\n\r\n`);
      assert.equal(parse([text]).failed, failed);
      assert.equal(parse([text.slice(0, 1000), text.slice(1000)]).failed, failed);
      assert.equal(parse([...text]).failed, failed);
    }
    assert.equal(parse([ok('X: '), 'a'.repeat(140_000)]).failed, true, 'without an end in sight');
  });

  test('a connection that ends early leaves the message incomplete', () => {
    for (const text of [
      'HTTP/1.1 200 O',
      ok('Content-Length: 5\r\n\r\nabc'),
      ok('Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n'),
    ]) {
      const { finished, failed, ended } = parse([text]);
      assert.deepEqual({ finished, failed, ended }, { finished: false, failed: false, ended: 0 });
    }
  });
});

describe('HTTP/1.1 response parser, any bytes', () => {
  const value = fc.stringMatching(/^[!-~\x80-\xff]{0,12}$/);
  const name = fc.constantFrom('X-A', 'Set-Cookie', 'x', 'Date', 'Keep-Alive', 'Connection', 'TE', 'Proxy-Connection');
  const headers = fc
    .array(
      fc.tuple(name, value).map(([n, v]) => `${n}: ${v}\r\n`),
      { maxLength: 5 },
    )
    .map((list) => list.join(''));
  const bytes = fc.string({
    unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
    maxLength: 40,
  });
  const chunked = fc.tuple(fc.array(bytes, { maxLength: 4 }), fc.constantFrom('', ';e=1', '\t;q'), headers).map(
    ([list, extension, trailers]) =>
      `Transfer-Encoding: chunked\r\n\r\n${list
        .filter((data) => data !== '')
        .map((data) => `${data.length.toString(16)}${extension}\r\n${data}\r\n`)
        .join('')}0\r\n${trailers}\r\n`,
  );
  const sized = bytes.map((data) => `Content-Length: ${data.length}\r\n\r\n${data}`);
  const open = bytes.map((data) => `\r\n${data}`);
  const start = fc.constantFrom(
    'HTTP/1.1 200 OK\r\n',
    'HTTP/1.1 404 \r\n',
    'HTTP/1.1 103 Hint\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n',
    'HTTP/1.1 101 S\r\n',
    'HTTP/1.0 200 OK\r\n',
    'HTTP/1.1 204 N\r\n',
  );
  const response = fc.tuple(start, headers, fc.oneof(chunked, sized, open)).map((parts) => parts.join(''));
  const damage = fc.array(fc.tuple(fc.nat(), fc.constantFrom('\r', '\n', '\0', ' ', ':', ';', 'f', '0', '\r\n', '')), {
    maxLength: 2,
  });
  const damaged = fc.tuple(response, damage).map(([text, places]) =>
    places.reduce((all, [place, char]) => {
      const at = place % (all.length + 1);
      return all.slice(0, at) + char + all.slice(at + 1);
    }, text),
  );

  test('the outcome does not depend on how the bytes are split', () => {
    fc.assert(
      fc.property(
        fc.oneof(response, damaged),
        fc.array(fc.nat(), { maxLength: 8 }),
        fc.boolean(),
        (text, cuts, noBody) => {
          const { calls: _whole, ...whole } = parse([text], noBody);
          const { calls: _parts, ...parts } = parse(split(text, cuts), noBody);
          const { calls: _bytes, ...single } = parse([...text], noBody);
          assert.deepEqual(parts, whole);
          assert.deepEqual(single, whole);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test('a chunked body comes out as it went in', () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 6 }), fc.array(fc.nat(), { maxLength: 8 }), (list, cuts) => {
        const framed = list.filter((data) => data !== '').map((data) => `${data.length.toString(16)}\r\n${data}\r\n`);
        const outcome = parse(split(ok(`Transfer-Encoding: chunked\r\n\r\n${framed.join('')}0\r\n\r\n`), cuts));
        assert.equal(outcome.body, list.join(''));
        assert.equal(outcome.reusable, true);
      }),
    );
  });

  test('random bytes never throw', () => {
    fc.assert(fc.property(fc.array(bytes), (pieces) => void parse(pieces)));
  });
});
