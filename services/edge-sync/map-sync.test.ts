import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type HaproxyServer, startHaproxy } from '../../shared/testkit/haproxy.ts';
import { MapSync } from './map-sync.ts';
import { RuntimeApi } from './runtime-api.ts';

describe('a map of a real HAProxy', () => {
  let haproxy: HaproxyServer;
  let file: string;
  const wanted = new Map<string, string>();

  const newSync = (): MapSync =>
    new MapSync(new RuntimeApi({ path: haproxy.adminSocket }), {
      get keys() {
        return wanted.keys();
      },
      valueOf: (key) => wanted.get(key),
    });
  const id = async (): Promise<string> => {
    const [, found] = /^(\d+) \([^)]*owners\.map\)/m.exec(await haproxy.command('show map')) ?? [];
    return `#${found}`;
  };
  const held = async (): Promise<ReadonlyMap<string, string>> => {
    const entries = new Map<string, string>();
    for (const line of (await haproxy.command(`show map ${file}`)).split('\n')) {
      const [, key, value] = line.split(' ');
      if (key !== undefined && key !== '_version') entries.set(key, value ?? '');
    }
    return entries;
  };
  const change = (sync: MapSync, key: string, value: string | undefined): void => {
    if (value === undefined) wanted.delete(key);
    else wanted.set(key, value);
    sync.touch(key);
  };

  before(async () => {
    haproxy = await startHaproxy();
    file = join(haproxy.stateDir, 'owners.map');
  });
  after(() => haproxy.close());

  test('is filled, changed entry by entry, and left alone when nothing changed', async () => {
    const sync = newSync();
    for (let i = 0; i < 100; i += 1) wanted.set(`t${i}.example`, 'core1');
    assert.deepEqual(await sync.sync(await id()), { kind: 'all', wasForeign: false });
    assert.deepEqual(await held(), wanted);
    assert.equal(await sync.sync(await id()), undefined);
    change(sync, 't1.example', 'core2:core3');
    change(sync, 't2.example', undefined);
    change(sync, 'new.example', 'core1');
    assert.deepEqual(await sync.sync(await id()), { kind: 'changes', wasForeign: false });
    assert.deepEqual(await held(), wanted);
  });

  test('is replaced as a whole when much changed, never half old and half new', async () => {
    const sync = newSync();
    for (let i = 0; i < 10_000; i += 1) wanted.set(`t${i}.example`, 'core1');
    await sync.sync(await id());
    for (let i = 0; i < 10_000; i += 1) change(sync, `t${i}.example`, 'core2');
    const mixtures: string[] = [];
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        const values = await haproxy.command(`get map ${file} t0.example;get map ${file} t9999.example`);
        const [first, last] = Array.from(values.matchAll(/value="([^"]*)"/g), ([, value]) => value);
        // The other way round, the new content came between the two questions.
        if (first === 'core2' && last !== 'core2') mixtures.push(values);
      }
    })();
    assert.equal((await sync.sync(await id()))?.kind, 'all');
    isOver = true;
    await watching;
    assert.deepEqual(mixtures, []);
    assert.deepEqual(await held(), wanted);
  });

  test('that comes back empty is found out and filled again', async () => {
    const sync = newSync();
    await sync.sync(await id());
    await haproxy.kill();
    await haproxy.start();
    assert.equal((await held()).size, 0);
    assert.deepEqual(await sync.sync(await id()), { kind: 'all', wasForeign: true });
    assert.deepEqual(await held(), wanted);
  });

  test('that comes back from a file of the same content needs nothing, and neither does one that another has filled', async () => {
    const sync = newSync();
    await sync.sync(await id());
    writeFileSync(file, `${sync.lines().join('\n')}\n`);
    await haproxy.reload();
    assert.deepEqual(await held(), wanted);
    assert.equal(await sync.sync(await id()), undefined);
    assert.equal(await newSync().sync(await id()), undefined);
  });

  test('takes changes again after a push that failed', async () => {
    const sync = newSync();
    await sync.sync(await id());
    change(sync, 't5.example', 'core9');
    await assert.rejects(sync.sync('#999'), /#999/);
    assert.equal((await sync.sync(await id()))?.kind, 'all');
    assert.deepEqual(await held(), wanted);
  });
});
