import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { CulvertError } from '../errors/codes.ts';
import { createLogger, type LoggerOptions } from './logger.ts';
import { redactSecrets } from './redact.ts';

interface Line {
  readonly time?: string;
  readonly err?: { readonly code: string; readonly message: string; readonly stack: string };
  readonly i?: number;
  readonly pad?: string;
  readonly dropped?: number;
}

function recorded(options: Partial<LoggerOptions> = {}) {
  const lines: string[] = [];
  const write = (line: string) => {
    lines.push(line);
  };
  const logger = createLogger({ name: 'core', nodeId: 'n1', ...options, destination: { write } });
  return { logger, lines, parsed: (): Line[] => lines.map((line) => JSON.parse(line) as Line) };
}

/** Runs a module that logs to standard output in a process of its own. */
function logging(t: TestContext, script: string) {
  const module = JSON.stringify(new URL('logger.ts', import.meta.url).href);
  const code = `import { createLogger, MAX_BUFFERED_LOG_BYTES } from ${module};\nconst log = createLogger({ name: 'core' });\n${script}`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  t.after(() => child.kill('SIGKILL'));
  assert.ok(child.stdout);
  return { child, stdout: child.stdout };
}

describe('the logger', () => {
  test('writes one JSON line for each event, with level, time, service and node', () => {
    const { logger, lines, parsed } = recorded();
    logger.info({ requestId: 'r1', status: 200 }, 'request\ndone');
    assert.match(lines[0] ?? '', /^[^\n]+\n$/);
    const [line] = parsed();
    assert.match(line?.time ?? '', /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.deepEqual(
      { ...line, time: '' },
      { level: 'info', time: '', name: 'core', nodeId: 'n1', pid: process.pid, requestId: 'r1', status: 200, msg: 'request\ndone' }, // biome-ignore format: one line
    );
  });

  test('tells the time to the millisecond', (t) => {
    const { logger, parsed } = recorded();
    const times = [
      Date.UTC(2026, 0, 2, 3, 4, 5, 6),
      Date.UTC(2026, 0, 2, 3, 4, 5, 70),
      Date.UTC(2027, 11, 31, 23, 59, 59, 999),
    ];
    for (const now of times) {
      const clock = t.mock.method(Date, 'now', () => now);
      logger.info('tick');
      clock.mock.restore();
    }
    assert.deepEqual(
      parsed().map((line) => line.time),
      times.map((now) => new Date(now).toISOString()),
    );
  });

  test('leaves out what is below its level', () => {
    const { logger, lines } = recorded({ level: 'warn' });
    logger.info('quiet');
    logger.warn('loud');
    assert.equal(lines.length, 1);
    const silent = recorded({ level: 'silent' });
    silent.logger.fatal('nothing');
    assert.equal(silent.lines.length, 0);
  });

  test('writes errors with code, stack and cause', () => {
    const { logger, parsed } = recorded();
    logger.error({ err: new CulvertError('timeout', 'too slow', { cause: new Error('why') }) }, 'failed');
    const err = parsed()[0]?.err;
    assert.equal(err?.code, 'timeout');
    assert.match(err?.message ?? '', /too slow.*why/);
    assert.match(err?.stack ?? '', /logger\.test/);
  });

  test('writes no secret, wherever it stands', () => {
    const { logger, lines } = recorded();
    logger.info({ token: 's3cret', status: 1 });
    logger.info({ request: { headers: { Authorization: 's3cret', Cookie: 's3cret', 'set-cookie': ['s3cret'] } } });
    logger.info({ headers: ['Host', 'a', 'Proxy-Authorization', 's3cret', 'cookie', 's3cret'] });
    logger.info({ config: { jwtSecret: 's3cret', relay: { clusterSecret: Buffer.from('s3cret') } } });
    logger.info({ list: [{ password: 's3cret' }] });
    logger.child({ token: 's3cret' }).info('child');
    logger.child({ agent: 'a' }).info({ access_token: 's3cret' }, 'child');
    assert.equal(lines.length, 7);
    for (const line of lines) {
      assert.ok(!line.includes('s3cret') && !line.includes('115'), line);
      assert.match(line, /redacted/);
    }
  });

  test('does not lose lines when the process exits at once', { timeout: 20_000 }, async (t) => {
    const { stdout } = logging(t, `for (let i = 0; i < 5000; i += 1) log.info({ i });\nprocess.exit(0);`);
    const lines = (await text(stdout)).trim().split('\n');
    assert.equal(lines.length, 5000);
    assert.equal((JSON.parse(lines[4999] ?? '') as Line).i, 4999);
  });

  test('drops lines rather than keep all for a reader that stands still, and says how many', {
    timeout: 30_000,
  }, async (t) => {
    const { child, stdout } = logging(
      t,
      `const pad = 'x'.repeat(64 * 1024);
       const sent = Math.ceil(MAX_BUFFERED_LOG_BYTES / pad.length) * 2;
       for (let i = 0; i < sent; i += 1) log.info({ pad });
       process.send(sent, () => process.disconnect());`,
    );
    const [sent] = (await once(child, 'message')) as [number];
    const lines = (await text(stdout))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Line);
    const told = lines.reduce((sum, line) => sum + (line.dropped ?? 0), 0);
    const arrived = lines.filter((line) => 'pad' in line).length;
    assert.ok(told > sent / 4, `${told} of ${sent} dropped`);
    assert.equal(arrived + told, sent);
  });
});

describe('redaction', () => {
  test('gives back the same object when there is nothing to hide, and never changes one in place', () => {
    const clean = { a: 1, nested: { list: ['x', 'y'] }, err: new Error('e') };
    assert.equal(redactSecrets(clean), clean);
    const dirty = { nested: { token: 'x', keep: 1 }, list: ['cookie', 'x'] };
    const copy = structuredClone(dirty);
    assert.deepEqual(redactSecrets(dirty), {
      nested: { token: '[redacted]', keep: 1 },
      list: ['cookie', '[redacted]'],
    });
    assert.deepEqual(dirty, copy);
  });

  test('ends on a value that holds itself', () => {
    const loop: Record<string, unknown> = { token: 'x' };
    Object.assign(loop, { self: loop });
    const clean: { readonly token?: unknown } = redactSecrets(loop);
    assert.equal(clean.token, '[redacted]');
  });
});
