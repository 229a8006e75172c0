import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from './eventually.ts';
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts';
import { type LocalService, startTcpService } from './local-service.ts';

describe('a fault proxy', () => {
  let echo: LocalService<unknown>;
  let proxy: FaultProxy;
  let socket: Socket;
  let received: string;

  const dial = (): Socket => {
    const made = connect(proxy.port, '127.0.0.1');
    made.setEncoding('latin1').on('data', (text: string) => {
      received += text;
    });
    made.on('error', () => {});
    return made;
  };

  beforeEach(async () => {
    received = '';
    echo = await startTcpService((service) => service.pipe(service));
    proxy = await startFaultProxy(echo.port);
    socket = dial();
    await once(socket, 'connect');
  });

  afterEach(async () => {
    socket.destroy();
    await proxy.close();
    await echo.close();
  });

  test('passes bytes and the end of each direction', async () => {
    const big = 'x'.repeat(10_000_000);
    socket.end(big);
    await once(socket, 'close');
    assert.equal(received.length, big.length);
    await until('it forgets the connection', () => proxy.connections === 0);
  });

  test('holds what is sent in silence and brings it after', async () => {
    proxy.silence();
    socket.write('hello');
    await wait(100);
    assert.equal(received, '');
    proxy.heal();
    await until('the bytes arrive', () => received === 'hello');
  });

  test('resets connections, and new ones, until it is healed', async () => {
    proxy.refuse();
    await until('the connection is reset', () => socket.destroyed);
    const second = dial();
    await until('the new one too', () => second.destroyed);
    proxy.heal();
    socket = dial();
    socket.write('again');
    await until('the bytes arrive', () => received === 'again');
  });

  test('delays each direction by what was asked', async () => {
    proxy.delay(150);
    const started = performance.now();
    socket.write('late');
    await until('the bytes arrive', () => received === 'late');
    assert.ok(performance.now() - started >= 295);
  });
});
