import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { z } from 'zod';
import { CulvertError } from '../errors/codes.ts';
import {
  AuthRequest,
  AuthResponse,
  ErrorMessage,
  FEATURES,
  GoAway,
  parseMessage,
  REQUIRED_FEATURES,
  TunnelRequest,
  TunnelResponse,
} from './messages.ts';
import { type Row, rows, section } from './vectors/spec.ts';

const MESSAGES: readonly (readonly [string, z.ZodObject])[] = [
  ['Auth Request', AuthRequest],
  ['Auth Response', AuthResponse],
  ['Register Tunnel and Unregister Tunnel', TunnelRequest],
  ['Replies to Register Tunnel and Unregister Tunnel', TunnelResponse],
  ['Go Away', GoAway],
  ['Error', ErrorMessage],
];

interface Samples {
  readonly good: readonly unknown[];
  readonly bad: readonly unknown[];
}

describe('control messages', () => {
  for (const [title, schema] of MESSAGES) {
    const documented = rows(title);
    const least = Object.fromEntries(
      documented.filter(([, , required]) => required === 'yes').map((row) => [row[0], samples(row).good[0]]),
    );

    test(`${title}: PROTOCOL.md names the fields of the code`, () => {
      assert.deepEqual(
        documented.map(([name]) => name),
        Object.keys(schema.shape),
      );
    });

    test(`${title}: the fields that PROTOCOL.md requires are enough, and each of them is needed`, () => {
      assert.deepEqual(parse(schema, least), least);
      for (const name of Object.keys(least)) {
        assert.throws(() => parse(schema, { ...least, [name]: undefined }), isInvalid, `${name} is not needed`);
      }
    });

    for (const row of documented) {
      const [name = ''] = row;
      test(`${title}: ${name} has the type and the limits that PROTOCOL.md gives it`, () => {
        const { good, bad } = samples(row);
        for (const value of good)
          assert.deepEqual(parse(schema, { ...least, [name]: value }), { ...least, [name]: value });
        for (const value of bad) {
          assert.throws(
            () => parse(schema, { ...least, [name]: value }),
            isInvalid,
            `${name}: ${JSON.stringify(value)}`,
          );
        }
      });
    }

    test(`${title}: fields that nobody knows are ignored`, () => {
      assert.deepEqual(parse(schema, { ...least, added_later: { deep: [1] } }), least);
    });
  }

  test('name the message and the field at fault', () => {
    const payload = Buffer.from('{"token":"t","slot":64}');
    assert.throws(() => parseMessage('Auth Request', AuthRequest, payload), {
      code: 'invalid_frame',
      message: /^Auth Request: slot: /,
    });
    assert.throws(() => parseMessage('Error', ErrorMessage, Buffer.from('[')), {
      message: 'Error: the payload is not JSON',
    });
    assert.throws(() => parseMessage('Error', ErrorMessage, Buffer.from('null')), { message: /^Error: payload: / });
  });

  test('are read from any bytes without another error than invalid_frame', () => {
    const json = fc.oneof(fc.json(), fc.string()).map((text) => Buffer.from(text));
    const payload = fc.oneof(
      json,
      fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    );
    fc.assert(
      fc.property(payload, fc.constantFrom(...MESSAGES), (bytes, [title, schema]) => {
        try {
          parseMessage(title, schema, bytes);
        } catch (error) {
          assert.ok(isInvalid(error), String(error));
        }
      }),
      { numRuns: 1000 },
    );
  });

  test('offer the features that PROTOCOL.md names', () => {
    const text = section('Auth Request');
    for (const feature of FEATURES) {
      const required = REQUIRED_FEATURES.includes(feature);
      assert.ok(text.includes(required ? `\`${feature}\` (required)` : `\`${feature}\``), feature);
    }
  });
});

function parse(schema: z.ZodType, message: object): unknown {
  return parseMessage('message', schema, Buffer.from(JSON.stringify(message)));
}

function isInvalid(error: unknown): boolean {
  return error instanceof CulvertError && error.code === 'invalid_frame';
}

/** Values at the documented limits, and just beyond them. */
function samples([name, type, , limits = '']: Row): Samples {
  const [least = 0, most = 0] = limits.split('–').map(Number);
  switch (type) {
    case 'boolean':
      return { good: [true, false], bad: ['true', 1, null] };
    case 'error code':
      return { good: ['timeout', 'not_processed'], bad: ['no_such_code', '', 7, 'toString'] };
    case 'integer':
      if (limits === '') return { good: [0, 1_893_456_000_000], bad: [1.5, '1', null] };
      return { good: [least, most], bad: [least - 1, most + 1, least + 0.5, String(least)] };
    case 'identifier':
      return { good: ['aZ0._:@-', 'x'.repeat(most)], bad: ['', 'x'.repeat(most + 1), 'a b', 'ä', 'a/b', 1] };
    case 'list of strings': {
      const [count = 0, length = 0] = limits.split(' of ').map(Number);
      const full = Array.from({ length: count }, () => 'x'.repeat(length));
      return { good: [[], full], bad: [[...full, 'x'], ['x'.repeat(length + 1)], 'x', [1]] };
    }
    case 'object':
      return { good: [{}, { rule: 'x', deep: { list: [1] } }], bad: [[], 'x', 1, null] };
    case 'string': {
      const good = ['x'.repeat(least), 'x'.repeat(most)];
      return { good, bad: ['x'.repeat(most + 1), 1, null, ...(least > 0 ? ['x'.repeat(least - 1)] : [])] };
    }
    default:
      throw new Error(`${name}: PROTOCOL.md gives a type that is not defined there: ${type}`);
  }
}
