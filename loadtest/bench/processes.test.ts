import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ProcessGroup } from './processes.ts';

const LIMIT_MS = 20_000;
const dir = mkdtempSync(join(tmpdir(), 'culvert-processes-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const place = (name: string) => ({ cwd: dir, env: process.env, logFile: join(dir, name) });
const WAITS = ['-e', 'console.log("ready"); setInterval(() => {}, 1000)'];
const isReady = (output: string) => (output.includes('ready') ? true : undefined);

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe('processes', () => {
  test('a command gives its output, or its SHA-256', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    assert.equal(await processes.capture('printf', ['abc'], LIMIT_MS), 'abc');
    const expected = createHash('sha256').update('abc').digest('hex');
    assert.equal(await processes.digest('printf', ['abc'], LIMIT_MS), expected);
  });

  test('a command that fails is an error with what it complained about, wherever it wrote that', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    const failing = (script: string) => processes.capture('sh', ['-c', script], LIMIT_MS);
    await assert.rejects(failing('echo why >&2; exit 3'), { code: 'internal_error', message: 'sh failed: why' });
    await assert.rejects(failing('echo because; exit 3'), { code: 'internal_error', message: 'sh failed: because' });
    await assert.rejects(processes.capture('/no/such/program', [], LIMIT_MS), { code: 'internal_error' });
  });

  test('a command that takes too long is ended with its children', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    // The shell's child keeps the pipe open: the call could not return while that lives.
    await assert.rejects(processes.capture('sh', ['-c', 'sleep 60; true'], 200), { code: 'timeout' });
  });

  test('stopping ends every service that was started', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    const service = await processes.start('waiter', process.execPath, WAITS, place('waiter.log'));
    assert.ok(await processes.waitFor(service, 'line', LIMIT_MS, () => isReady(service.output())));
    assert.ok(isAlive(service.pid));
    await processes.stopAll();
    assert.ok(!isAlive(service.pid));
  });

  test('waiting for a service that has ended tells the end of its log', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    const service = await processes.start('broken', 'sh', ['-c', 'echo no port; exit 1'], place('broken.log'));
    const waiting = processes.waitFor(service, 'line', LIMIT_MS, () => isReady(service.output()));
    await assert.rejects(waiting, { code: 'internal_error', message: 'broken ended: no port' });
  });

  test('waiting for a service that never gets ready is bounded', async () => {
    const processes = new ProcessGroup(new AbortController().signal);
    const service = await processes.start('slow', 'sleep', ['60'], place('slow.log'));
    const waiting = processes.waitFor(service, 'line', 50, () => isReady(service.output()));
    await assert.rejects(waiting, { code: 'timeout' });
    await processes.stopAll();
  });

  test('an abort ends a running command and lets nothing more start', async () => {
    const stop = new AbortController();
    const processes = new ProcessGroup(stop.signal);
    const running = processes.capture('sleep', ['60'], LIMIT_MS);
    const reason = new Error('stopped');
    stop.abort(reason);
    await assert.rejects(running, reason);
    await assert.rejects(processes.capture('printf', ['abc'], LIMIT_MS), reason);
    await assert.rejects(processes.start('late', 'sleep', ['60'], place('late.log')), reason);
  });
});
