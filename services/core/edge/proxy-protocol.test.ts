import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { decodeProxyHeader, PROXY_HEADER_MAX } from './proxy-protocol.ts';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');

function v2(command: number, family: number, payload: Buffer): Buffer {
  const fixed = Buffer.from([command, family, payload.length >> 8, payload.length & 0xff]);
  return Buffer.concat([SIGNATURE, fixed, payload]);
}

const V4 = Buffer.from([192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb]);
const V6 = Buffer.concat([
  Buffer.from('20010db8000000000000000000000001', 'hex'),
  Buffer.alloc(16, 1),
  Buffer.alloc(4),
]);

const GOOD: [string, Buffer, string | undefined][] = [
  ['v1 IPv4', Buffer.from('PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n'), '192.0.2.1'],
  ['v1 IPv6', Buffer.from('PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n'), '2001:db8::1'],
  ['v1 UNKNOWN', Buffer.from('PROXY UNKNOWN\r\n'), undefined],
  ['v1 UNKNOWN with text', Buffer.from('PROXY UNKNOWN ffff::1 what ever\r\n'), undefined],
  ['v2 IPv4', v2(0x21, 0x11, V4), '192.0.2.1'],
  ['v2 IPv6', v2(0x21, 0x21, V6), '2001:db8::1'],
  ['v2 IPv4 with TLVs', v2(0x21, 0x11, Buffer.concat([V4, Buffer.from([0x04, 0, 2, 9, 9])])), '192.0.2.1'],
  ['v2 LOCAL', v2(0x20, 0x00, Buffer.alloc(0)), undefined],
  ['v2 UNSPEC', v2(0x21, 0x00, Buffer.from([1, 2, 3])), undefined],
  ['v2 Unix socket', v2(0x21, 0x31, Buffer.alloc(216)), undefined],
];

const BAD: [string, Buffer][] = [
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\n')],
  ['a v1 line without end', Buffer.from(`PROXY TCP4 ${'1'.repeat(120)}`)],
  ['a v1 line of 108 bytes', Buffer.from(`PROXY UNKNOWN ${'x'.repeat(92)}\r\n`)],
  ['an IPv6 address as TCP4', Buffer.from('PROXY TCP4 ::1 ::1 1 1\r\n')],
  ['a name for an address', Buffer.from('PROXY TCP4 evil 1.1.1.1 1 1\r\n')],
  ['a port above 65535', Buffer.from('PROXY TCP4 1.1.1.1 1.1.1.1 65536 1\r\n')],
  ['a port with a leading zero', Buffer.from('PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n')],
  ['a missing port', Buffer.from('PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n')],
  ['two spaces', Buffer.from('PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n')],
  ['UDP', Buffer.from('PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n')],
  ['a v2 version 1', v2(0x11, 0x11, V4)],
  ['an unknown v2 command', v2(0x22, 0x11, V4)],
  ['a v2 datagram family', v2(0x21, 0x12, V4)],
  ['short v2 addresses', v2(0x21, 0x11, V4.subarray(0, 8))],
  ['an overlong v2 header', v2(0x21, 0x11, Buffer.alloc(3_000))],
];

describe('decodeProxyHeader', () => {
  for (const [name, bytes, address] of GOOD) {
    test(`reads ${name}, wherever it is split`, () => {
      for (let cut = 0; cut < bytes.length; cut++) {
        assert.deepEqual(decodeProxyHeader(bytes.subarray(0, cut)), { state: 'more' });
      }
      const expected = { state: 'done', length: bytes.length, address };
      assert.deepEqual(decodeProxyHeader(bytes), expected);
      assert.deepEqual(decodeProxyHeader(Buffer.concat([bytes, Buffer.from('GET / HTTP/1.1\r\n')])), expected);
    });
  }

  for (const [name, bytes] of BAD) {
    test(`refuses ${name}`, () => {
      assert.equal(decodeProxyHeader(bytes).state, 'bad');
    });
  }

  test('never throws, and never asks for more than it says, whatever the bytes', () => {
    const prefix = fc.constantFrom(Buffer.alloc(0), Buffer.from('PROXY TCP4 '), Buffer.from('PROXY '), SIGNATURE);
    const tail = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(prefix, tail, (head, rest) => {
        const bytes = Buffer.concat([head, rest]);
        const result = decodeProxyHeader(bytes);
        if (result.state === 'done') assert.ok(result.length <= bytes.length);
        if (result.state !== 'more') return;
        const full = Buffer.concat([bytes, Buffer.alloc(PROXY_HEADER_MAX)]).subarray(0, PROXY_HEADER_MAX);
        assert.notEqual(decodeProxyHeader(full).state, 'more');
      }),
      { numRuns: 2_000 },
    );
  });
});
