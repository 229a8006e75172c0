import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, before, beforeEach, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startTcpService } from '../../../shared/testkit/local-service.ts';
import { RawVisitor } from '../../core/edge/edge-testing.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

const HOST = 'Host: app.localhost\r\n';

/** Requests whose head is already wrong. `smuggled` stands where a second request would hide. */
const WRONG_HEADS: Readonly<Record<string, string>> = {
  'two lengths that differ': `POST / HTTP/1.1\r\n${HOST}Content-Length: 4\r\nContent-Length: 60\r\n\r\nbody`,
  'two equal lengths': `POST / HTTP/1.1\r\n${HOST}Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody`,
  'a list of lengths': `POST / HTTP/1.1\r\n${HOST}Content-Length: 4, 4\r\n\r\nbody`,
  'a signed length': `POST / HTTP/1.1\r\n${HOST}Content-Length: +4\r\n\r\nbody`,
  'a hexadecimal length': `POST / HTTP/1.1\r\n${HOST}Content-Length: 0x4\r\n\r\nbody`,
  'a length beyond all numbers': `POST / HTTP/1.1\r\n${HOST}Content-Length: 99999999999999999999\r\n\r\nbody`,
  'a length and chunks': `POST / HTTP/1.1\r\n${HOST}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'chunks and a length': `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n`,
  'chunks applied twice': `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'chunks that are not the last coding': `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n`,
  'a coding in disguise': `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
  'a space before the colon': `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`,
  'chunks in HTTP/1.0': `POST / HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'two Hosts': `GET / HTTP/1.1\r\n${HOST}Host: other.localhost\r\n\r\n`,
  'two equal Hosts': `GET / HTTP/1.1\r\n${HOST}${HOST}\r\n`,
  'no Host': 'GET / HTTP/1.1\r\n\r\n',
  'a Host that is none': 'GET / HTTP/1.1\r\nHost: app.localhost/../x\r\n\r\n',
  'a folded field': `GET / HTTP/1.1\r\n${HOST}X-Field: a\r\n folded\r\n\r\n`,
  'a null byte in a value': `GET / HTTP/1.1\r\n${HOST}X-Field: a\0b\r\n\r\n`,
  'a null byte in a name': `GET / HTTP/1.1\r\n${HOST}X-Fi\0eld: a\r\n\r\n`,
  'a null byte in the target': `GET /\0 HTTP/1.1\r\n${HOST}\r\n`,
  'a bare CR in a value': `GET / HTTP/1.1\r\n${HOST}X-Field: a\rX-Other: b\r\n\r\n`,
  'a field without a name': `GET / HTTP/1.1\r\n${HOST}: value\r\n\r\n`,
  'a field without a colon': `GET / HTTP/1.1\r\n${HOST}nonsense\r\n\r\n`,
  'a target with a space': `GET /a b HTTP/1.1\r\n${HOST}\r\n`,
  'a method that is no token': `G(T / HTTP/1.1\r\n${HOST}\r\n`,
  'a version from nowhere': `GET / HTTP/7.3\r\n${HOST}\r\n`,
  'TLS on the plain port': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and more of a ClientHello',
};

/** Requests whose head is in order, so that the service may see it, but whose body is wrong. */
const WRONG_BODIES: Readonly<Record<string, string>> = {
  'a chunk size that is no number': 'zz\r\nhello\r\n0\r\n\r\n',
  'a negative chunk size': '-5\r\nhello\r\n0\r\n\r\n',
  'a chunk size with a prefix': '0x5\r\nhello\r\n0\r\n\r\n',
  'a chunk size beyond all numbers': 'fffffffffffffffff\r\nhello\r\n0\r\n\r\n',
  'a chunk longer than its size': '5\r\nhello and more\r\n0\r\n\r\n',
  'a chunk size that ends with LF alone': '5\nhello\r\n0\r\n\r\n',
};

const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: app.localhost\r\n\r\n';

describe('a hostile request', () => {
  let service: LocalService<unknown>;
  let tunnel: Tunnel;
  let received: string;

  before(async () => {
    service = await startTcpService((socket) => {
      let text = '';
      socket.on('data', (chunk) => {
        received += chunk.toString('latin1');
        text += chunk.toString('latin1');
        if (/^GET .*\r\n\r\n$/s.test(text)) socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK');
      });
      socket.on('end', () => socket.end());
    });
    tunnel = await startTunnel({ services: { app: service.url } });
  });
  after(async () => {
    await tunnel.close();
    await service.close();
  });
  beforeEach(() => {
    received = '';
  });

  function attack(text: string): RawVisitor {
    const visitor = new RawVisitor(connect({ port: tunnel.publicPort, host: '127.0.0.1', allowHalfOpen: true }));
    visitor.send(text);
    return visitor;
  }

  /** What was sent before has passed or never will: a later request of another visitor has come to the service and back. */
  async function assertServes(): Promise<void> {
    assert.equal((await visit(`${tunnel.url('app')}/honest`)).text, 'OK');
    assert.match(received, /GET \/honest HTTP\/1\.1\r\n/);
  }

  for (const [what, text] of Object.entries(WRONG_HEADS)) {
    test(`with ${what} is answered 400 and never seen by the service`, async () => {
      const answer = await attack(text + SMUGGLED).untilEnd();
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
      assert.equal(answer.match(/HTTP\/1\.1 \d/g)?.length, 1, answer);
      await assertServes();
      assert.equal(received.match(/ HTTP\/1\.1\r\n/g)?.length, 1, received);
    });
  }

  for (const [what, body] of Object.entries(WRONG_BODIES)) {
    test(`with ${what} is answered 400, and the service sees neither its end nor what follows`, async () => {
      const head = `POST /wrong HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`;
      const answer = await attack(head + body + SMUGGLED).untilEnd();
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
      assert.equal(answer.match(/HTTP\/1\.1 \d/g)?.length, 1, answer);
      await assertServes();
      assert.doesNotMatch(received, /smuggled|\r\n0\r\n/);
      await until('the agent lets go', () => tunnel.agent.active === 0);
    });
  }

  test('with fields that never end is answered 431 after a bounded number of bytes', async () => {
    const visitor = attack(`GET / HTTP/1.1\r\n${HOST}`);
    let sent = 0;
    const line = `X-Endless: ${'x'.repeat(1000)}\r\n`;
    while (!visitor.ended && !visitor.received.includes('\r\n\r\n') && sent < 16 * 1024 * 1024) {
      sent += line.length;
      const taken = visitor.socket.write(line);
      await new Promise((resolve) => (taken ? setImmediate(resolve) : visitor.socket.once('drain', resolve)));
    }
    assert.match(await visitor.untilEnd(), /^HTTP\/1\.1 431 /);
    visitor.socket.destroy();
    await assertServes();
    assert.doesNotMatch(received, /X-Endless/);
  });

  test('with a request line that never ends is answered 431', async () => {
    const visitor = attack(`GET /${'x'.repeat(200_000)}`);
    assert.match(await visitor.untilEnd(), /^HTTP\/1\.1 431 /);
    visitor.socket.destroy();
    await assertServes();
  });

  test('for CONNECT is refused and never seen by the service', async () => {
    const answer = await attack(`CONNECT app.localhost:443 HTTP/1.1\r\n${HOST}\r\n`).untilEnd();
    assert.match(answer, /^HTTP\/1\.1 405 /);
    await assertServes();
    assert.doesNotMatch(received, /CONNECT/);
  });
});
