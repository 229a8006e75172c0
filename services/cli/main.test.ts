import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
const EXIT_MODULE = new URL('./exit.ts', import.meta.url).href;
const TSX = import.meta.resolve('tsx');
const SECRET = '0123456789abcdef0123456789abcdef';

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function culvert(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      ['--import', TSX, MAIN, ...args],
      { env: { HOME: '/nonexistent', ...env }, timeout: 20_000, killSignal: 'SIGKILL' },
      (_, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

describe('the command', () => {
  test('prints a token and nothing else', async () => {
    const ended = await culvert(['token', 'create', '--agent-id', 'a', '--account-id', 'b'], {
      TUNNEL_JWT_SECRET: SECRET,
    });
    assert.match(ended.stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
    assert.deepEqual([ended.code, ended.stderr], [0, '']);
  });

  test('answers wrong usage with one line on stderr and 2', async () => {
    const ended = await culvert(['serve']);
    assert.deepEqual(ended, {
      code: 2,
      stdout: '',
      stderr: "culvert: unknown command 'serve'; did you mean server? (invalid_config)\n",
    });
  });

  test('shows no stack trace for a wrong configuration, even when debugging', async () => {
    const ended = await culvert(['server', '--log-level', 'debug']);
    assert.equal(ended.code, 2);
    assert.match(ended.stderr, /^culvert: nothing says how to verify agent tokens: .* \(invalid_config\)\n$/);
  });
});

describe('a running service', () => {
  /** A process that runs `service` as `culvert server` would, and says when it is ready. */
  async function start(service: string) {
    const source = `
      const { exitCodeOf } = await import(${JSON.stringify(EXIT_MODULE)});
      const ready = () => setImmediate(() => console.log('ready'));
      process.exitCode = await exitCodeOf(async () => { ${service} });
    `;
    const child = spawn(process.execPath, ['--import', TSX, '--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 20_000,
      killSignal: 'SIGKILL',
    });
    await once(child.stdout, 'data');
    return child;
  }

  const FOREVER = 'const timer = setInterval(() => {}, 1000); ready();';
  const GRACEFUL = `${FOREVER} await new Promise((done) => process.once('SIGTERM', done)); clearInterval(timer);`;
  const STUCK = `${FOREVER} process.on('SIGINT', () => console.log('draining')); await new Promise(() => {});`;

  test('that drains on SIGTERM exits with 143', async () => {
    const child = await start(GRACEFUL);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'exit'), [143, null]);
  });

  test('that does not drain is ended by the second SIGINT with 130', async () => {
    const child = await start(STUCK);
    child.kill('SIGINT');
    await once(child.stdout, 'data');
    child.kill('SIGINT');
    assert.deepEqual(await once(child, 'exit'), [130, null]);
  });

  test('that handles no signal is ended by the first', async () => {
    const child = await start(`${FOREVER} await new Promise(() => {});`);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'exit'), [143, null]);
  });

  test('that ends by itself exits with 0', async () => {
    const child = await start(
      `const timer = setTimeout(() => {}, 50); ready(); await new Promise((done) => setImmediate(done));`,
    );
    assert.deepEqual(await once(child, 'exit'), [0, null]);
  });
});
