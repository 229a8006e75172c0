import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { startHttpService } from '../../../shared/testkit/local-service.ts';
import { createToken } from '../token.ts';
import { CulvertProcess } from './processes.ts';
import { SECRET, signToken, startTunnel, stateDir } from './tunnel.ts';

describe('culvert status', { timeout: 120_000 }, () => {
  test('shows a node, its agent and its tunnel, and says what is wrong with a server or token', async (t) => {
    const service = await startHttpService((_request, response) => response.end('ok'));
    const tunnel = await startTunnel({ services: { api: service.url }, coreOptions: { 'node-id': 'node-1' } });
    t.after(async () => {
      await tunnel.close();
      await service.close();
    });
    const server = `127.0.0.1:${tunnel.core.addresses.dashboardPort}`;
    const token = await createToken({ role: 'viewer', secret: SECRET }, {});
    const ask = (args: readonly string[], env = {}) => new CulvertProcess(['status', ...args], env).exited;
    const env = { CULVERT_API_SERVER: server, CULVERT_API_TOKEN: token };

    const [shown, json, agentToken, nobody, noToken] = await Promise.all([
      ask(['--server', server, '--token', token]),
      ask(['--json'], env),
      ask(['--server', server, '--token', await signToken()]),
      ask(['--server', '127.0.0.1:1', '--token', token]),
      ask(['--server', server]),
    ]);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /^1 node, 1 agent, 1 session, 1 tunnel, [\d.]+ requests\/s\n/);
    assert.match(shown.stdout, /^node-1 \* {2}up /m);
    assert.match(shown.stdout, /^agent-1 +account-1 +node-1 +127\.0\.0\.1 /m);
    assert.match(shown.stdout, /^api +account-1 +ok +agent-1@node-1 +http:\/\/api\.localhost/m);
    const { tunnels } = JSON.parse(json.stdout) as { tunnels: { items: { name: string }[] } };
    assert.deepEqual(
      tunnels.items.map(({ name }) => name),
      ['api'],
    );
    assert.deepEqual([agentToken.code, nobody.code, noToken.code], [3, 1, 2]);
    assert.match(agentToken.stderr, /^culvert: http:\S+: the token's claim "aud" is missing \(invalid_token\)\n$/);
    assert.match(nobody.stderr, /^culvert: http:\/\/127\.0\.0\.1:1 does not answer as a node: /);
    assert.match(noToken.stderr, /^culvert: token is missing: give --token-file/);
  });

  test('needs nothing beside culvert up', async (t) => {
    const directory = mkdtempSync(join(stateDir, 'up-'));
    const ports = ['public-addr', 'agent-addr', 'dashboard-addr', 'metrics-addr'].flatMap((key) => [
      `--${key}`,
      '127.0.0.1:0',
    ]);
    const up = new CulvertProcess(['up', ...ports, '--state-dir', directory]);
    t.after(async () => {
      await up.kill();
      rmSync(directory, { recursive: true, force: true });
    });
    await up.until('stdout', /demo\.localhost/);
    const { code, stdout, stderr } = await new CulvertProcess(['status', '--state-dir', directory]).exited;
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^demo +local +ok +local@/m);
  });
});
