import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { checkHaproxyConfig, HAPROXY_CONFIG } from '../shared/testkit/haproxy.ts';
import { ensureServerCertificate } from '../shared/tls/certificates.ts';

const config = readFileSync(HAPROXY_CONFIG, 'utf8');

describe('haproxy.cfg', () => {
  let directory: string;
  let certificates: string;

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'culvert-haproxy-check-'));
    for (const map of ['owners.map', 'nodes.map']) writeFileSync(join(directory, map), '');
    writeFileSync(join(directory, 'servers.state'), '1\n');
    const { certFile } = await ensureServerCertificate(join(directory, 'tls'), { hosts: ['*.tunnel.example'] });
    certificates = certFile;
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  for (const [what, variables] of [
    ['with nothing but its directory', {}],
    ['with certificates', { CULVERT_CERTIFICATES: 'certificates' }],
    ['behind another balancer', { CULVERT_ACCEPT_PROXY: '1', CULVERT_CERTIFICATES: 'certificates' }],
    ['with limits of one’s own', { CULVERT_UNLIMITED: '198.51.100.7 2001:db8::/32', CULVERT_MAX_REQUEST_RATE: '10' }],
    ['with HTTPS only', { CULVERT_CERTIFICATES: 'certificates', CULVERT_REDIRECT_HTTPS: '1' }],
    ['with its runtime API on TCP', { CULVERT_ADMIN_ADDR: '127.0.0.1:1999' }],
    ['for both families of addresses', { CULVERT_HTTP_BIND: ':80,:::80', CULVERT_SLOTS: '64' }],
  ] as const) {
    test(`is accepted without a warning ${what}`, async () => {
      const named = Object.entries(variables).map(([name, value]) => [
        name,
        value === 'certificates' ? certificates : value,
      ]);
      const { isValid, output } = await checkHaproxyConfig({
        CULVERT_STATE_DIR: directory,
        ...(Object.fromEntries(named) as Record<string, string>),
      });
      assert.ok(isValid, output);
    });
  }

  test('is refused when something in it is not understood', async () => {
    const { isValid, output } = await checkHaproxyConfig({ CULVERT_STATE_DIR: directory, CULVERT_BUFFER: 'large' });
    assert.equal(isValid, false);
    assert.match(output, /tune\.bufsize/);
  });

  test('has each of its variables in README.md, with the same default, and README.md has no other', () => {
    const readme = readFileSync(join(dirname(HAPROXY_CONFIG), 'README.md'), 'utf8');
    const used = new Map<string, string>();
    for (const [, name, fallback] of config.matchAll(/\$\{(CULVERT_[A-Z_]+)(?:\[\*\])?(?:-([^}]*))?\}/g)) {
      used.set(name ?? '', fallback ?? used.get(name ?? '') ?? '');
    }
    for (const [, name] of config.matchAll(/defined\((CULVERT_[A-Z_]+)\)/g)) {
      if (!used.has(name ?? '')) used.set(name ?? '', '');
    }
    const told = new Map<string, string>();
    for (const [, name, fallback] of readme.matchAll(/^\| `(CULVERT_[A-Z_]+)` *\| (?:`([^`]*)`)?/gm)) {
      told.set(name ?? '', fallback ?? '');
    }
    assert.deepEqual([...told].sort(), [...used].sort());
  });

  test('names no section twice, which HAProxy 3.3 refuses', () => {
    const names = Array.from(config.matchAll(/^(?:frontend|backend|defaults) (\S+)/gm), ([, name]) => name);
    assert.equal(new Set(names).size, names.length);
    assert.ok(names.length > 8);
  });
});
