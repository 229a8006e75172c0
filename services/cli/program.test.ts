import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { CommanderError } from 'commander';
import { UnsecuredJWT } from 'jose';
import type { AgentConfig, CoreConfig, EdgeSyncConfig } from '../../shared/config/config.ts';
import type { Address } from '../../shared/config/net-values.ts';
import { upCredentialsPath, writeUpCredentials } from '../../shared/config/up-credentials.ts';
import { CulvertError } from '../../shared/errors/codes.ts';
import { errorLines, exitCodeFor } from './exit.ts';
import { buildProgram, type HttpUi, type UpInput } from './program.ts';

const SECRET = '0123456789abcdef0123456789abcdef';
const TOKEN = new UnsecuredJWT({ agent_id: 'a1', account_id: 'acme' }).encode();

const directory = mkdtempSync(join(tmpdir(), 'culvert-program-'));
after(() => rmSync(directory, { recursive: true }));

interface Outcome {
  out: string;
  err: string;
  error?: unknown;
  up?: UpInput;
  server?: CoreConfig;
  agent?: AgentConfig;
  http?: { config: AgentConfig; ui: HttpUi };
  demo?: Address;
  edgeSync?: EdgeSyncConfig;
}

async function run(args: string[], env: Record<string, string> = {}, isTerminal = false): Promise<Outcome> {
  const outcome: Outcome = { out: '', err: '' };
  const program = buildProgram(
    {
      up: async (input) => {
        outcome.up = input;
      },
      server: async (config) => {
        outcome.server = config;
      },
      agent: async (config) => {
        outcome.agent = config;
      },
      http: async (config, ui) => {
        outcome.http = { config, ui };
      },
      demo: async (address) => {
        outcome.demo = address;
      },
      edgeSync: async (config) => {
        outcome.edgeSync = config;
      },
    },
    {
      env: { HOME: directory, ...env },
      isTerminal,
      write: (text) => {
        outcome.out += text;
      },
      writeError: (text) => {
        outcome.err += text;
      },
    },
  );
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    outcome.error = error;
  }
  return outcome;
}

async function refused(args: string[], env: Record<string, string> = {}): Promise<string> {
  const { error, out, err } = await run(args, env);
  assert.equal(exitCodeFor(error), 2);
  assert.equal(out + err, '');
  return errorLines(error).join('\n');
}

describe('culvert', () => {
  test('prints its version and its help, and neither is a failure', async () => {
    const version = await run(['--version']);
    assert.match(version.out, /^\d+\.\d+\.\d+\n$/);
    assert.equal(exitCodeFor(version.error), 0);
    const help = await run(['--help']);
    for (const command of ['up', 'server', 'agent', 'http', 'demo', 'edge-sync', 'token', 'config']) {
      assert.match(help.out, new RegExp(`^  ${command} `, 'm'));
    }
    assert.equal(exitCodeFor(help.error), 0);
  });

  test('without a command prints its help as a failure', async () => {
    const { err, error } = await run([]);
    assert.match(err, /^Usage: culvert/);
    assert.deepEqual([exitCodeFor(error), errorLines(error)], [2, []]);
  });

  for (const [args, expected] of [
    [['serve'], "culvert: unknown command 'serve'; did you mean server? (invalid_config)"],
    [
      ['server', '--jwt-secert', 'x'],
      "culvert: unknown option '--jwt-secert'; did you mean --jwt-secret? (invalid_config)",
    ],
    [['agent', '--server'], "culvert: option '--server <host:port>' argument missing (invalid_config)"],
    [['http'], "culvert: missing required argument 'port|url' (invalid_config)"],
    [
      ['server', 'now'],
      "culvert: too many arguments for 'server'. Expected 0 arguments but got 1: now. (invalid_config)",
    ],
    [['up', '--jwks-url', 'https://id.test'], "culvert: unknown option '--jwks-url' (invalid_config)"],
  ] as const) {
    test(`refuses "${args.join(' ')}" in one line`, async () => assert.equal(await refused([...args]), expected));
  }
});

describe('culvert demo', () => {
  test('listens on loopback unless told otherwise', async () => {
    assert.deepEqual((await run(['demo'])).demo, { host: '127.0.0.1', port: 3000 });
    assert.deepEqual((await run(['demo', '--addr', ':0'])).demo, { host: '', port: 0 });
  });
});

describe('culvert server', () => {
  test('takes flags, environment and file', async () => {
    const file = join(directory, 'core.yaml');
    writeFileSync(file, 'max-visitors: 7\nmax-connections: 7\n');
    const args = [
      'server',
      '--config',
      file,
      '--public-addr',
      ':1',
      '--trusted-proxies',
      '10.0.0.0/8',
      '--trusted-proxies',
      '::1',
    ];
    const { server } = await run(args, { TUNNEL_JWT_SECRET: SECRET, TUNNEL_MAX_CONNECTIONS: '6' });
    assert.deepEqual([server?.publicAddr.port, server?.maxConnections, server?.maxVisitors], [1, 6, 7]);
    assert.deepEqual(
      server?.trustedProxies?.map(({ address }) => address),
      ['10.0.0.0', '::1'],
    );
  });

  test('reports every problem, a line each', async () => {
    assert.equal(
      await refused(['server', '--max-visitors', '0'], { TUNNEL_JWT_SECRET: 'hunter2', TUNNEL_LOGLEVEL: 'info' }),
      [
        'culvert: the environment variable TUNNEL_LOGLEVEL is not known; did you mean TUNNEL_LOG_LEVEL? (invalid_config)',
        'culvert: TUNNEL_JWT_SECRET: has 7 bytes: HS256 needs at least 32 (RFC 7518 section 3.2); make one with "openssl rand -base64 48" (invalid_config)',
        'culvert: --max-visitors: "0" is not an integer from 1 to 1000000 (invalid_config)',
      ].join('\n'),
    );
  });
});

describe('culvert agent', () => {
  test('turns switches on and off over what the environment says', async () => {
    const args = ['agent', '--server', 's', '--token', TOKEN, '--local', 'a=1', '--local', 'b=2', '--no-tls'];
    const { agent } = await run(args, { AGENT_TLS: 'true', AGENT_LOCAL_TLS_SKIP_VERIFY: 'true' });
    assert.deepEqual([agent?.tls, agent?.localTlsSkipVerify], [false, true]);
    assert.deepEqual(
      agent?.local.map(({ name }) => name),
      ['a', 'b'],
    );
    const on = await run([...args.slice(0, -1), '--tls'], { AGENT_TLS: 'false' });
    assert.equal(on.agent?.tls, true);
  });
});

describe('culvert up', () => {
  test('needs no option, and passes on only what was given', async () => {
    const { up } = await run(['up']);
    assert.deepEqual([up?.flags, up?.file, up?.demo], [{}, undefined, true]);
    const given = await run(['up', '--no-demo', '--public-addr', ':0']);
    assert.deepEqual([given.up?.flags, given.up?.demo], [{ 'public-addr': ':0' }, false]);
  });
});

describe('culvert http', () => {
  const configured = ['--server', 'core.test', '--token', TOKEN];

  test('serves one service under a random name', async () => {
    const { http } = await run(['http', '3000', ...configured]);
    assert.equal(http?.config.local[0]?.url, 'http://localhost:3000');
    assert.match(String(http?.config.local[0]?.name), /^[a-z]+-[a-z]+-\d{4}$/);
    assert.equal(http?.config.metricsPort, 0);
  });

  test('serves it under the name given by flag or environment', async () => {
    const byFlag = await run(['http', 'https://localhost', ...configured, '--subdomain', 'shop']);
    const byEnv = await run(['http', '3000', ...configured], { AGENT_SUBDOMAIN: 'shop', AGENT_METRICS_PORT: '9191' });
    assert.equal(byFlag.http?.config.local[0]?.name, 'shop');
    assert.deepEqual([byEnv.http?.config.local[0]?.name, byEnv.http?.config.metricsPort], ['shop', 9191]);
  });

  test('paints a live view on a terminal only, and colours it unless NO_COLOR says not to', async () => {
    const args = ['http', '3000', ...configured];
    assert.deepEqual((await run(args)).http?.ui, { live: false, color: false });
    assert.deepEqual((await run(args, {}, true)).http?.ui, { live: true, color: true });
    assert.deepEqual((await run(args, { NO_COLOR: '1' }, true)).http?.ui, { live: true, color: false });
    assert.deepEqual((await run(args, { TERM: 'dumb' }, true)).http?.ui, { live: false, color: false });
    assert.deepEqual((await run([...args, '--plain'], {}, true)).http?.ui, { live: false, color: false });
  });

  test('refuses what is not one service', async () => {
    assert.match(await refused(['http', 'api=3000', ...configured]), /"api=3000" is not a local service/);
    assert.match(await refused(['http', 'ftp://localhost', ...configured]), /is not a local service/);
  });

  describe('with nothing configured', () => {
    const stateDir = join(directory, 'state');

    test('says in one line what to do', async () => {
      const line = await refused(['http', '3000', '--state-dir', join(directory, 'none')]);
      assert.match(line, /^culvert: no server to use: start one with "culvert up" .*--token-file \(invalid_config\)$/);
    });

    test('uses what culvert up left, which only its owner can read', async () => {
      const caCert = join(directory, 'ca.pem');
      writeFileSync(caCert, 'pem');
      const publicUrl = 'http://{name}.localhost:8080';
      writeUpCredentials(stateDir, {
        server: '127.0.0.1:8443',
        token: TOKEN,
        caCert,
        serverName: 'localhost',
        publicUrl,
      });
      assert.equal(statSync(upCredentialsPath(stateDir)).mode & 0o777, 0o600);
      for (const outcome of [
        await run(['http', '3000', '--state-dir', stateDir]),
        await run(['http', '3000'], { TUNNEL_STATE_DIR: stateDir }),
      ]) {
        const config = outcome.http?.config;
        assert.deepEqual(
          [config?.server, config?.token, config?.caCert, config?.tlsServerName],
          [{ host: '127.0.0.1', port: 8443 }, TOKEN, caCert, 'localhost'],
        );
      }
    });

    test('never sends the token that culvert up left to another server', async () => {
      const line = await refused(['http', '3000', '--state-dir', stateDir, '--server', 'elsewhere.test']);
      assert.match(line, /^culvert: token is missing/);
    });

    test('refuses a broken file and says how to renew it', async () => {
      writeFileSync(upCredentialsPath(stateDir), '{"server": 1');
      const line = await refused(['http', '3000', '--state-dir', stateDir]);
      assert.match(line, /up\.json cannot be used: start "culvert up" again to renew it \(invalid_config\)$/);
    });
  });
});

describe('culvert config check', () => {
  test('finds out which service a file is for, and prints its values without secrets', async () => {
    const core = join(directory, 'c.yaml');
    writeFileSync(core, `jwt-secret: ${SECRET}\nmax-header-size: 65536\n`);
    const checked = await run(['config', 'check', core]);
    assert.match(checked.out, /^ok\n(.|\n)*jwt-secret: "\[redacted\]"\n(.|\n)*max-header-size: 64KiB\n/);
    assert.doesNotMatch(checked.out, new RegExp(SECRET));
    const agent = join(directory, 'a.json');
    writeFileSync(agent, JSON.stringify({ server: 'core.test', local: { web: 3000 } }));
    const other = await run(['config', 'check', agent], { AGENT_TOKEN: TOKEN });
    assert.match(other.out, /^ok\n(.|\n)*- web=http:\/\/localhost:3000\n/);
    assert.doesNotMatch(other.out, new RegExp(TOKEN));
  });

  test('prints every problem for the service that is named', async () => {
    const file = join(directory, 'd.yaml');
    writeFileSync(file, 'server: core.test\nlocal: 3000\n');
    const lines = (await refused(['config', 'check', '--service', 'agent', file])).split('\n');
    assert.equal(lines.length, 2);
    assert.match(String(lines[0]), /^culvert: token is missing/);
    assert.match(String(lines[1]), /^culvert: local in .*d\.yaml has no name/);
  });
});

describe('exit codes', () => {
  for (const [error, code] of [
    [new CulvertError('invalid_config'), 2],
    [new CommanderError(1, 'commander.unknownOption', 'error: x'), 2],
    [new CulvertError('invalid_token'), 3],
    [new CulvertError('tunnel_taken'), 3],
    [new CulvertError('connection_closed'), 1],
    [new Error('listen EADDRINUSE'), 1],
  ] as const) {
    test(`${error.message} is ${code}`, () => assert.equal(exitCodeFor(error), code));
  }

  test('an error is one line however its message looks', () => {
    assert.deepEqual(errorLines(new CulvertError('timeout', 'a\r\nb\x1b[2J')), ['culvert: a b [2J (timeout)']);
    assert.deepEqual(errorLines(new Error('boom')), ['culvert: boom (internal_error)']);
  });
});
