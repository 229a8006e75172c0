import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { clusterIdentity } from './cluster-identity.ts';
import { type IdentityFiles, identityFromFiles } from './identity-files.ts';

const SECRET = 'a cluster secret of thirty-two bytes or more';

describe('the identity of a node from files', () => {
  let dir: string;
  let files: IdentityFiles;

  const write = (name: string, text: string): string => {
    const path = join(dir, name);
    writeFileSync(path, text);
    return path;
  };

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'culvert-identity-'));
    const { ca, cert, key } = await clusterIdentity(SECRET, 'node-a');
    files = { ca: write('ca', ca), cert: write('cert', cert), key: write('key', key) };
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  test('is what the files hold, read anew each time', async () => {
    const first = await identityFromFiles(files, 'node-a');
    assert.ok(first.expiresAt > Date.now());
    const { ca, cert, key } = await clusterIdentity(SECRET, 'node-a');
    const renewed = { cert: write('cert-2', cert), key: write('key-2', key), ca: write('ca-2', ca + first.ca) };
    assert.deepEqual((await identityFromFiles(renewed, 'node-a')).cert, cert);
    assert.notEqual(first.cert, cert);
  });

  test('is refused for another node, with a key of another certificate, or without an authority', async () => {
    const other = await clusterIdentity(SECRET, 'node-b');
    const otherKey = write('other-key', other.key);
    for (const [what, given, id, says] of [
      ['another node', files, 'node-b', /is for node node-a: it needs the URI name culvert-node:node-b/],
      ['another key', { ...files, key: otherKey }, 'node-a', /./],
      ['a leaf as authority', { ...files, ca: files.cert }, 'node-a', /no authority/],
      ['no certificate', { ...files, ca: otherKey }, 'node-a', /relay-tls-ca/],
      ['no file', { ...files, ca: join(dir, 'none') }, 'node-a', /relay-tls-ca/],
    ] as const) {
      await assert.rejects(identityFromFiles(given, id), { code: 'invalid_config', message: says }, what);
    }
  });
});
