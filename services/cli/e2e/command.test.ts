import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { until } from '../../../shared/testkit/eventually.ts';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { freePort, type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type CoreProcess, CulvertProcess, type Exit, startAgentProcess, startCoreProcess } from './processes.ts';
import { CORE_FLAGS, SECRET, signToken, stateDir } from './tunnel.ts';

const LOOPBACK = ['public-addr', 'agent-addr', 'dashboard-addr', 'metrics-addr'].flatMap((key) => [
  `--${key}`,
  '127.0.0.1:0',
]);

function run(...args: string[]): Promise<Exit> {
  return new CulvertProcess(args).exited;
}

/** The code, and one line that says why: nothing else on standard error. */
function assertRefused(exit: Exit, code: number, line: RegExp): void {
  assert.equal(exit.stderr.split('\n').length, 2, exit.stderr);
  assert.match(exit.stderr, line);
  assert.deepEqual([exit.code, exit.signal], [code, null]);
}

describe('a command that cannot do what it is told', () => {
  let core: CoreProcess;
  let busy: LocalService<unknown>;

  before(async () => {
    core = await startCoreProcess();
    busy = await startHttpService((_request, response) => response.end());
  });
  after(async () => {
    await core.process.kill();
    await busy.close();
  });

  test('because of an unknown option exits with 2', async () => {
    assertRefused(await run('up', '--publc-addr', ':80'), 2, /^culvert: unknown option '--publc-addr'.*\n$/);
  });

  test('because of an option value exits with 2', async () => {
    const exit = await run('server', '--jwt-secret', SECRET, '--public-addr', 'nonsense');
    assertRefused(exit, 2, /^culvert: --public-addr: .*\(invalid_config\)\n$/);
  });

  test('because a file is missing exits with 2', async () => {
    const exit = await run('server', '--jwt-secret-file', '/nonexistent/secret');
    assertRefused(exit, 2, /^culvert: --jwt-secret-file: "\/nonexistent\/secret" does not exist \(invalid_config\)\n$/);
  });

  test('because its configuration file is missing exits with 2', async () => {
    const exit = await run('agent', '--config', '/nonexistent/agent.yaml');
    assert.equal(exit.code, 2);
    assert.match(exit.stderr, /^culvert: .*\/nonexistent\/agent\.yaml.*\n/);
  });

  test('because "culvert up" never ran here exits with 2 and says what to do', async () => {
    const exit = await run('http', '3000', '--state-dir', '/nonexistent');
    assertRefused(exit, 2, /^culvert: no server to use: start one with "culvert up".*\n$/);
  });

  test('because its token is no token exits with 2', async () => {
    const exit = await run('agent', '--server', 'localhost:1', '--token', 'abc', '--local', 'app=3000');
    assertRefused(exit, 2, /^culvert: token: is not a JWT.*\n$/);
  });

  test('because the core refuses its token exits with 3', async () => {
    const exit = await runAgent(await signToken({ secret: SECRET.toUpperCase() }), 'app=3000');
    assertRefused(exit, 3, /^culvert: the signature of the token is wrong \(invalid_token\)\n$/);
  });

  test('because its name belongs to another account exits with 3', async () => {
    const holder = await startAgentProcess(core, { taken: busy.url });
    const exit = await runAgent(await signToken({ accountId: 'account-2' }), 'taken=3000');
    assertRefused(exit, 3, /^culvert: .*taken.*\(tunnel_taken\)\n$/);
    await holder.kill();
  });

  test('because the core is not there exits with 1 after its last attempt', async () => {
    const exit = await runAgent(await signToken(), 'app=3000', ['--max-retries', '2'], 1);
    assertRefused(exit, 1, /^culvert: 127\.0\.0\.1:1: .*ECONNREFUSED.*\(connection_closed\)\n$/);
  });

  test('because the certificate of the core is not trusted exits with 1 and names the option', async () => {
    const flags = ['agent', '--server', `127.0.0.1:${core.agentPort}`, '--token', await signToken()];
    const exit = await run(...flags, '--local', 'app=3000', '--metrics-port', '0', '--max-retries', '1');
    assertRefused(exit, 1, /^culvert: the certificate of .* is not accepted: .*ca-cert.*\n$/);
  });

  for (const key of ['public-addr', 'agent-addr', 'metrics-addr'] as const) {
    test(`because the port of ${key} is in use exits with 1, since it may be free later`, async () => {
      const flags = { ...CORE_FLAGS, [key]: `127.0.0.1:${busy.port}`, 'log-level': 'fatal' };
      const exit = await run('server', ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]));
      assertRefused(exit, 1, new RegExp(`^culvert: .*127\\.0\\.0\\.1:${busy.port}.*\\n$`));
      assert.match(exit.stderr, /EADDRINUSE/);
    });
  }

  function runAgent(token: string, local: string, more: string[] = [], port = core.agentPort): Promise<Exit> {
    const flags = ['--server', `127.0.0.1:${port}`, '--token', token, '--local', local, '--metrics-port', '0'];
    return run('agent', ...flags, '--ca-cert', join(stateDir, 'tls/ca.crt'), ...more);
  }
});

describe('"culvert up" and "culvert http" with nothing configured', () => {
  let home: string;
  let up: CulvertProcess;
  let service: LocalService<unknown>;
  let held: ServerResponse[];

  before(async () => {
    home = mkdtempSync(join(tmpdir(), 'culvert-home-'));
    service = await startHttpService((request, response) => {
      if (request.url === '/held') held.push(response);
      else response.end('from my machine');
    });
    up = new CulvertProcess(['up', ...LOOPBACK], { HOME: home });
    await up.until('stdout', /^http:\/\/demo\.localhost:\d+$/m);
  });
  after(async () => {
    await up.kill();
    await service.close();
    rmSync(home, { recursive: true, force: true });
  });
  beforeEach(() => {
    held = [];
  });

  async function http(): Promise<[CulvertProcess, string]> {
    const command = new CulvertProcess(['http', String(service.port)], { HOME: home });
    const [, url = ''] = await command.until('stdout', /forwarding (http:\S+) -> /);
    return [command, url];
  }

  test('the printed URL shows the demonstration', async () => {
    const page = await visit(up.stdout.trim(), { headers: { accept: 'text/html' } });
    assert.equal(page.status, 200);
    assert.match(page.text, /It works/);
  });

  test('what "up" says stays on standard error, so that a script can read the URL', () => {
    assert.match(up.stdout, /^http:\/\/demo\.localhost:\d+\n$/);
    assert.match(up.stderr, / http 3000 /);
  });

  test('a local port is public under a random name, several at once', async () => {
    const [[first, url], [second, otherUrl]] = await Promise.all([http(), http()]);
    assert.notEqual(url, otherUrl);
    for (const each of [url, otherUrl]) assert.equal((await visit(each)).text, 'from my machine');
    await first.until('stdout', /GET \/ 200 /);
    await Promise.all([first.kill(), second.kill()]);
  });

  test('SIGTERM ends "http" with 143 once what it answers is finished', async () => {
    const [command, url] = await http();
    const page = visit(`${url}/held`);
    await until('the request is at the service', () => held.length === 1);
    command.child.kill('SIGTERM');
    await until('new requests are refused', async () => (await visit(url)).status >= 400);
    held[0]?.end('finished');
    assert.equal((await page).text, 'finished');
    const { code, stderr } = await command.exited;
    assert.deepEqual([code, stderr], [143, '']);
  });

  test('SIGINT ends "up" with 130, and the next start keeps its key', async () => {
    const { code } = await up.kill('SIGINT');
    assert.equal(code, 130);
    up = new CulvertProcess(['up', '--no-demo', ...LOOPBACK], { HOME: home });
    await up.until('stderr', /Health/);
    const [command, url] = await http();
    assert.equal((await visit(url)).text, 'from my machine');
    await command.kill();
  });
});

test('"culvert demo" serves the demonstration alone, for an agent that says when it is ready', async () => {
  const core = await startCoreProcess();
  const demo = new CulvertProcess(['demo', '--addr', '127.0.0.1:0']);
  const [, address = ''] = await demo.until('stdout', /listens on (127\.0\.0\.1:\d+)/);
  const metricsPort = await freePort();
  const agent = await startAgentProcess(core, { demo: `http://${address}` }, { 'metrics-port': String(metricsPort) });
  assert.match((await visit(core.url('demo'))).text, /^Hello from the demo service/);
  const ready = async () => (await fetch(`http://127.0.0.1:${metricsPort}/health/ready`)).status;
  assert.equal(await ready(), 200);
  await core.process.kill();
  await until('the agent knows that nobody can reach it', async () => (await ready()) === 503);
  await agent.kill();
  const { code, stderr } = await demo.kill('SIGTERM');
  assert.deepEqual([code, stderr], [143, '']);
});

describe('SIGTERM', () => {
  test('ends a core and an agent with 143 once what they answer is finished', async () => {
    const held: ServerResponse[] = [];
    const service = await startHttpService((_request, response) => held.push(response));
    const core = await startCoreProcess();
    const agent = await startAgentProcess(core, { app: service.url });
    const page = visit(core.url('app'));
    await until('the request is at the service', () => held.length === 1);
    core.process.child.kill('SIGTERM');
    await core.process.until('stdout', /"node is draining"/);
    held[0]?.end('finished');
    assert.equal((await page).text, 'finished');
    const ended = await core.process.exited;
    assert.deepEqual([ended.code, ended.stderr], [143, '']);
    const stopped = await agent.kill('SIGTERM');
    assert.deepEqual([stopped.code, stopped.stderr], [143, '']);
    await service.close();
  });
});
