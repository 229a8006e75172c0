import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { UnsecuredJWT } from 'jose';
import { describeConfig, loadAgentConfig, loadCoreConfig } from './config.ts';
import { ConfigError } from './load.ts';
import { expandUrlTemplate } from './net-values.ts';

const SECRET = '0123456789abcdef0123456789abcdef';
const TOKEN = new UnsecuredJWT({ agent_id: 'a1', account_id: 'acme' }).encode();

const directory = mkdtempSync(join(tmpdir(), 'culvert-config-'));
after(() => rmSync(directory, { recursive: true }));
const pem = join(directory, 'some.pem');
writeFileSync(pem, 'pem');
const secretPath = join(directory, 'secret');
writeFileSync(secretPath, `${SECRET}\n`);
const tokenPath = join(directory, 'token');
writeFileSync(tokenPath, `${TOKEN}\n`);

const CLUSTER = { 'cluster-secret': SECRET };

type Flags = Record<string, unknown>;

const core = (flags: Flags) => loadCoreConfig({ flags: { 'jwt-secret': SECRET, 'node-id': 'n1', ...flags } });
const agent = (flags: Flags) =>
  loadAgentConfig({ flags: { server: 'core.test', token: TOKEN, local: 'web=3000', ...flags } });

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.join('\n');
  }
  return assert.fail('the configuration was accepted');
}

describe('the core configuration', () => {
  test('has the documented defaults', () => {
    assert.deepEqual(describeConfig(core({ 'state-dir': '/var/lib/culvert' })), {
      'agent-addr': ':8443',
      'public-addr': ':8080',
      'relay-addr': ':7443',
      'dashboard-addr': ':9000',
      'metrics-addr': ':9090',
      'base-domain': 'localhost',
      'public-url': 'http://{name}.localhost:8080',
      'jwt-secret': '[redacted]',
      'proxy-protocol': 'off',
      'max-connections': 1000,
      'max-connections-per-account': 50,
      'max-tunnels-per-account': 100,
      'max-visitors': 20000,
      'max-streams-per-session': 4096,
      'max-header-size': '96KiB',
      'max-body-size': 0,
      'session-buffer': '64MiB',
      'process-buffer': '512MiB',
      'heartbeat-interval': '15s',
      'heartbeat-timeout': '30s',
      'auth-timeout': '10s',
      'response-timeout': '2m',
      'idle-timeout': '75s',
      'drain-timeout': '30s',
      'drain-delay': '3s',
      'node-id': 'n1',
      'state-dir': '/var/lib/culvert',
      'log-level': 'info',
      'log-requests': 'errors',
    });
  });

  test('takes the secret from a file and describes only its path', () => {
    const config = loadCoreConfig({ env: { TUNNEL_JWT_SECRET_FILE: secretPath } });
    assert.equal(config.jwtSecret, SECRET);
    assert.doesNotMatch(JSON.stringify(describeConfig(config)), new RegExp(SECRET));
    assert.equal(describeConfig(config)['jwt-secret-file'], secretPath);
  });

  test('makes a node id of its own that differs from one start to the next', () => {
    const ids = [1, 2].map(() => loadCoreConfig({ flags: { 'jwt-secret': SECRET } }).nodeId);
    assert.notEqual(ids[0], ids[1]);
  });

  test('keeps its state where XDG says', () => {
    const env = { TUNNEL_JWT_SECRET: SECRET, HOME: '/home/u' };
    assert.equal(loadCoreConfig({ env }).stateDir, '/home/u/.local/state/culvert');
    assert.equal(loadCoreConfig({ env: { ...env, XDG_STATE_HOME: '/state' } }).stateDir, '/state/culvert');
  });

  for (const [flags, expected] of [
    [{ 'base-domain': 'Example.com', 'public-addr': ':80' }, 'http://{name}.example.com'],
    [{ 'public-addr': '127.0.0.1:0' }, 'http://{name}.localhost:{port}'],
    [{ 'public-tls-addr': ':443', 'public-tls-cert': pem, 'public-tls-key': pem }, 'https://{name}.localhost'],
    [{ 'public-tls-addr': ':8444', 'public-tls-cert': pem, 'public-tls-key': pem }, 'https://{name}.localhost:8444'],
    [{ 'public-url': 'https://{name}.t.example.com/' }, 'https://{name}.t.example.com'],
  ] as const) {
    test(`tells agents URLs such as ${expected}`, () => assert.equal(core(flags).publicUrl, expected));
  }

  for (const [name, flags, expected] of [
    [
      'two ways to verify tokens',
      { 'jwks-url': 'https://id.test/jwks' },
      /^--jwt-secret and --jwks-url exclude each other/,
    ],
    ['no way to verify tokens', { 'jwt-secret': undefined }, /^nothing says how to verify agent tokens/],
    ['a short secret', { 'jwt-secret': 'hunter2' }, /^--jwt-secret: has 7 bytes: HS256 needs at least 32/],
    ['a certificate without its key', { 'agent-tls-cert': pem }, /^--agent-tls-cert needs its private key/],
    ['a key without its certificate', { 'agent-tls-key': pem }, /^--agent-tls-key needs its certificate/],
    [
      'an HTTPS listener without a certificate',
      { 'public-tls-addr': ':443' },
      /needs both public-tls-cert and public-tls-key/,
    ],
    ['an HTTPS certificate without a listener', { 'public-tls-cert': pem }, /has no effect without public-tls-addr/],
    ['PROXY lines from anybody', { 'proxy-protocol': 'on' }, /^--proxy-protocol needs trusted-proxies/],
    ['a timeout within the heartbeat', { 'heartbeat-timeout': '15s' }, /must be longer than heartbeat-interval/],
    ['a process buffer below one session', { 'process-buffer': '32MiB' }, /must be at least session-buffer/],
    [
      'a Redis password in two places',
      { ...CLUSTER, 'redis-url': 'redis://:hunter2@redis', 'redis-password-file': secretPath },
      /^--redis-password-file and a password in --redis-url exclude each other/,
    ],
    ['a Redis password without Redis', { 'redis-password-file': secretPath }, /has no effect without redis-url/],
    [
      'a password of sentinels in two places',
      {
        ...CLUSTER,
        'redis-url': 'redis+sentinel://one/main',
        'redis-sentinel-password': 'hunter2',
        'redis-sentinel-password-file': secretPath,
      },
      /^--redis-sentinel-password and --redis-sentinel-password-file exclude each other/,
    ],
    [
      'a password of sentinels without sentinels',
      { ...CLUSTER, 'redis-url': 'redis://redis', 'redis-sentinel-password-file': secretPath },
      /^--redis-sentinel-password-file has an effect only with a redis-url that starts with redis\+sentinel:/,
    ],
    [
      'a cluster secret and a relay certificate',
      { ...CLUSTER, 'redis-url': 'redis://redis', 'relay-tls-cert': pem },
      /^a cluster secret and relay-tls-cert exclude each other/,
    ],
    [
      'a relay certificate without its authority',
      { 'redis-url': 'redis://redis', 'relay-tls-cert': pem, 'relay-tls-key': pem },
      /^relay-tls-cert, relay-tls-key and relay-tls-ca belong together/,
    ],
    ['a relay certificate without Redis', { 'relay-tls-ca': pem }, /^--relay-tls-ca has no effect without redis-url/],
    ['headers above what a frame carries', { 'max-header-size': '113KiB' }, /is not a size from 1KiB to 112KiB/],
  ] as const) {
    test(`is refused with ${name}`, () => {
      const text = refusal(() => core(flags));
      assert.match(text, expected);
      assert.doesNotMatch(text, /hunter2|\n/);
    });
  }
});

test('the passwords of Redis and its sentinels come from files', () => {
  const config = core({
    ...CLUSTER,
    'redis-url': 'redis+sentinel://culvert@one,two/main',
    'redis-password-file': secretPath,
    'redis-sentinel-password-file': secretPath,
  });
  assert.equal(config.redisUrl, `redis+sentinel://culvert:${SECRET}@one,two/main`);
  assert.equal(config.redisSentinelPassword, SECRET);
  assert.doesNotMatch(JSON.stringify(describeConfig(config)), new RegExp(SECRET));
});

test('a template of URLs takes the name and the port of the listener', () => {
  assert.equal(expandUrlTemplate('http://{name}.localhost:{port}', 'api', 8080), 'http://api.localhost:8080');
});

describe('the agent configuration', () => {
  test('has the documented defaults', () => {
    assert.deepEqual(describeConfig(agent({})), {
      server: 'core.test:8443',
      token: '[redacted]',
      'agent-id': 'a1',
      connections: 2,
      'reconnect-interval': '5s',
      'max-retries': 0,
      tls: true,
      'tls-skip-verify': false,
      local: ['web=http://localhost:3000'],
      'host-header': 'preserve',
      'request-timeout': '30s',
      'health-check-interval': '10s',
      'local-tls-skip-verify': false,
      'metrics-port': 9091,
      'log-level': 'info',
      'log-requests': 'errors',
    });
  });

  test('names a single service by subdomain', () => {
    const { local } = agent({ local: 'https://10.0.0.5:8443', subdomain: 'Shop' });
    assert.deepEqual(
      local.map(({ name, url }) => [name, url]),
      [['shop', 'https://10.0.0.5:8443']],
    );
  });

  test('takes the token from a file', () => {
    const config = agent({ token: undefined, 'token-file': tokenPath });
    assert.deepEqual([config.token, config.agentId, config.tokenFile?.path], [TOKEN, 'a1', tokenPath]);
  });

  for (const [name, flags, expected] of [
    ['no token', { token: undefined }, /^token is missing/],
    ['two tokens', { 'token-file': tokenPath }, /^--token and --token-file exclude each other/],
    ['what is not a token', { token: 'hunter2' }, /^token: is not a JWT/],
    ['a token for nobody', { token: new UnsecuredJWT({}).encode() }, /^token: has no agent_id claim/],
    ["another agent's token", { 'agent-id': 'a2' }, /^agent-id: the token is for agent "a1", not "a2"/],
    ['a service without a name', { local: '3000' }, /^--local has no name/],
    ['a second name for a service', { subdomain: 'x' }, /^--subdomain has no effect/],
    [
      'a balance for a service that is not there',
      { balance: 'api=sticky' },
      /^--balance names api, which --local does not serve: it has web$/,
    ],
    ['a name that is no label', { local: 'a_b=3000' }, /^--local: the tunnel name "a_b" may hold only letters/],
    ['an authority that is not asked', { tls: false, 'ca-cert': pem }, /^--ca-cert has no effect without tls/],
    [
      'a check that is skipped',
      { 'tls-skip-verify': true, 'ca-cert': pem },
      /^--ca-cert has no effect with tls-skip-verify/,
    ],
    ['a scheme before the server', { server: 'https://core.test' }, /without https:\/\/ before it/],
    ['too many connections', { connections: '9' }, /is not an integer from 1 to 8/],
    ['an authority file that is missing', { 'ca-cert': `${pem}.none` }, /^--ca-cert: ".*none" does not exist/],
  ] as const) {
    test(`is refused with ${name}`, () => {
      const text = refusal(() => agent(flags));
      assert.match(text, expected);
      assert.doesNotMatch(text, /hunter2|\n/);
    });
  }
});
