import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { account, agent, withCode } from '../contract/support.contract.ts';
import { directoryContract } from '../directory.contract.ts';
import type { Directory } from '../directory.ts';
import { revoke } from '../operations.ts';
import { createMemoryDirectory } from './memory-directory.ts';

directoryContract('memory', async (options) => {
  const directory = await createMemoryDirectory(options);
  return { a: directory, b: directory, settled: async () => {}, close: () => directory.close() };
});

describe('a directory in a file', () => {
  let home: string;
  let file: string;
  const open: Directory[] = [];
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'culvert-directory-'));
    file = join(home, 'state', 'directory.jsonl');
  });
  afterEach(async () => {
    await Promise.all(open.splice(0).map((directory) => directory.close()));
    rmSync(home, { recursive: true, force: true });
  });

  async function start(): Promise<Directory> {
    const directory = await createMemoryDirectory({ file });
    open.push(directory);
    return directory;
  }

  test('has after a restart what it had before, without what was removed', async () => {
    const first = await start();
    const { version } = await first.put('account', 'acme', account(), 0);
    await first.put('account', 'acme', account({ disabled: true, limits: { list: [], map: {} } }), version);
    const gone = await first.put('account', 'gone', account(), 0);
    await first.put('agent', 'acme/laptop', agent(), 0);
    await revoke(first, { target: { type: 'token', tokenId: 't1' }, by: 'root' });
    await first.remove('account', 'gone', gone.version);
    // As after a crash: nothing was closed.
    const second = await start();
    for (const kind of ['account', 'agent', 'revocation'] as const) {
      assert.deepEqual(second.list(kind), first.list(kind));
    }
    assert.equal(second.get('account', 'acme')?.disabled, true);
    const { version: last = 0 } = second.get('account', 'acme') ?? {};
    await assert.rejects(second.remove('account', 'acme', last), withCode('conflict'));
    assert.ok((await second.put('account', 'more', account(), 0)).version > last);
  });

  test('can be read by its owner only', async () => {
    await start();
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(statSync(join(home, 'state')).mode & 0o777, 0o700);
  });

  test('loses nothing but the change that a crash cut off, and goes on behind the last whole one', async () => {
    const first = await start();
    await first.put('account', 'one', account(), 0);
    await first.put('account', 'two', account(), 0);
    await first.close();
    truncateSync(file, statSync(file).size - 3);
    const second = await start();
    assert.deepEqual([second.get('account', 'two'), second.count('account')], [undefined, 1]);
    await second.put('account', 'three', account(), 0);
    await second.close();
    const third = await start();
    assert.deepEqual(third.list('account').map(({ id }) => id), ['one', 'three']); // biome-ignore format: one line
  });

  test('stops the start when it is damaged, instead of letting in what it refuses', async () => {
    const first = await start();
    await first.put('account', 'evil', account({ disabled: true }), 0);
    await first.close();
    const good = readFileSync(file, 'utf8');
    for (const [content, line] of [
      [`${good}nonsense\n`, 3],
      [`${good}["account","x"]\n`, 3],
      ['another file\n', 1],
    ] as const) {
      writeFileSync(file, content);
      await assert.rejects(createMemoryDirectory({ file }), (error: Error) => {
        assert.match(error.message, new RegExp(`line ${line} of .*directory\\.jsonl is damaged`));
        return withCode('invalid_config')(error);
      });
    }
  });

  test('is written anew at the start when most of it is outdated', async () => {
    const first = await start();
    let { version } = await first.put('account', 'acme', account(), 0);
    for (let i = 0; i < 3; i += 1)
      ({ version } = await first.put('account', 'acme', account({ name: `${i}` }), version));
    await first.close();
    const last = readFileSync(file, 'utf8').trim().split('\n').at(-1) ?? '';
    appendFileSync(file, `${last}\n`.repeat(1200));
    const second = await start();
    assert.equal(readFileSync(file, 'utf8').split('\n').length, 3);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await second.put('account', 'acme', account({ name: 'new' }), version);
    const third = await start();
    assert.equal(third.get('account', 'acme')?.name, 'new');
  });

  test('changes nothing when the disk does not take it', async (t) => {
    const directory = await start();
    await directory.put('account', 'acme', account(), 0);
    const before = readFileSync(file, 'utf8');
    // The file handle of the directory is no longer one that can be written.
    const { FileHandle } = await handleClass();
    const failing = t.mock.method(FileHandle, 'datasync', () => Promise.reject(new Error('no space')));
    await assert.rejects(directory.put('account', 'new', account(), 0), withCode('registry_unavailable'));
    failing.mock.restore();
    assert.equal(directory.get('account', 'new'), undefined);
    assert.equal(readFileSync(file, 'utf8'), before);
    await directory.put('account', 'new', account(), 0);
    assert.equal((await start()).count('account'), 2);
  });
});

/** Node exports no name for the class of its file handles. */
async function handleClass(): Promise<{ FileHandle: { datasync(): Promise<void> } }> {
  const { open } = await import('node:fs/promises');
  const handle = await open(import.meta.filename, 'r');
  const FileHandle: { datasync(): Promise<void> } = Object.getPrototypeOf(handle);
  await handle.close();
  return { FileHandle };
}
