import assert from 'node:assert/strict';
import { createServer } from 'node:https';
import { after, describe, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { createForwarder, type ForwarderOptions } from './forwarder.ts';
import { listen, selfSigned, send } from './test-support.ts';

const pem = selfSigned();
const server = createServer(pem, (request, response) => {
  const socket = request.socket as TLSSocket & { servername?: string | false };
  request
    .resume()
    .on('end', () => response.end(`${socket.alpnProtocol} ${socket.servername || '-'} ${'x'.repeat(100_000)}`));
});
const port = await listen(server);
const forwarders: { close(): void }[] = [];
after(() => {
  for (const forwarder of forwarders) forwarder.close();
  server.close();
  server.closeAllConnections();
});

function forward(options: Partial<ForwarderOptions> = {}, host = 'localhost') {
  const forwarder = createForwarder({ mappings: { web: `https://${host}:${port}` }, ...options });
  forwarders.push(forwarder);
  return forwarder;
}

describe('an https service', () => {
  test('a self-signed certificate on the loopback is fine, SNI and ALPN are sent, the connection is used again', async () => {
    const forwarder = forward();
    for (let i = 0; i < 3; i++) {
      const stream = await send(forwarder, { method: 'POST', body: Buffer.alloc(50_000) }).over();
      assert.equal(stream.closed, 'ok');
      assert.equal(stream.bodyBytes, 'http/1.1 localhost '.length + 100_000);
      assert.ok(stream.text.startsWith('http/1.1 localhost '));
      assert.equal(stream.credit, 50_000);
    }
  });

  test('an address has no SNI', async () => {
    const stream = await send(forward({}, '127.0.0.1')).over();
    assert.ok(stream.text.startsWith('http/1.1 - '), stream.message);
  });

  test('the certificate is checked when that is asked for', async () => {
    const refused = await send(forward({ tls: { verify: true } })).over();
    assert.equal(refused.closed, 'service_unreachable');
    assert.match(refused.message, /SELF_SIGNED/);
    assert.equal((await send(forward({ tls: { verify: true, ca: pem.cert } })).over()).closed, 'ok');
  });
});
