import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLogger } from '../../../shared/observability/logger.ts';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { createMemoryRegistry } from '../../../shared/registry/memory/memory-registry.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import { ensureServerCertificate } from '../../../shared/tls/certificates.ts';
import { AgentListener } from './agent-listener.ts';
import { SessionTable } from './session-table.ts';
import { createTokenVerifier } from './token-verifier.ts';

async function start(): Promise<{ listener: AgentListener; clean: () => Promise<void> }> {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-listener-'));
  const registry = createMemoryRegistry();
  const listener = new AgentListener({
    host: '127.0.0.1',
    port: 0,
    ...(await ensureServerCertificate(directory, { hosts: ['localhost'] })),
    registry,
    table: new SessionTable(),
    verifier: createTokenVerifier({ secret: 'a secret that is long enough for HS256, surely' }),
    log: createLogger({ level: 'silent', name: 'test' }),
    nodeId: 'node-1' as NodeId,
    version: '0.0.0',
    baseDomain: 'localhost',
    publicUrl: (name) => name,
    authTimeout: 100,
    heartbeatInterval: 15_000,
    heartbeatTimeout: 30_000,
    maxConnections: 10,
    maxConnectionsPerAccount: 10,
    maxTunnelsPerAccount: 10,
    maxStreamsPerSession: 100,
    sessionBuffer: 1_000_000,
    processBudget: new ByteBudget(10_000_000),
    onAuthenticated: () => {},
    onRefused: () => {},
  });
  await listener.listen();
  const clean = async (): Promise<void> => {
    await registry.close();
    rmSync(directory, { recursive: true, force: true });
  };
  return { listener, clean };
}

test('a drain ends at its deadline although a connection never began its handshake', async () => {
  const { listener, clean } = await start();
  const silent = connect(listener.address.port, '127.0.0.1');
  silent.on('error', () => {});
  await once(silent, 'connect');
  const closed = once(silent, 'close');
  const before = performance.now();
  await listener.close(50);
  await closed;
  assert.ok(performance.now() - before < 5000, 'the drain waited for the handshake timeout');
  await clean();
});

test('a connection whose handshake fails is closed at once', async () => {
  const { listener, clean } = await start();
  const visitor = connect(listener.address.port, '127.0.0.1');
  visitor.on('error', () => {});
  visitor.resume();
  visitor.write('GET / HTTP/1.1\r\n\r\n');
  await once(visitor, 'close');
  await listener.close(50);
  await clean();
});
