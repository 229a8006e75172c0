import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { checkHaproxyConfig, HAPROXY_CONFIG, type HaproxyServer, startHaproxy } from '../shared/testkit/haproxy.ts';
import { visit } from '../shared/testkit/http-visitor.ts';
import { type LocalService, startTcpService } from '../shared/testkit/local-service.ts';
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

describe('HAProxy without any node', () => {
  test('says so as a node would, with a code and a request id', async () => {
    const haproxy = await startHaproxy();
    try {
      const { status, headers, text } = await visit(`http://app.localhost:${haproxy.httpPort}/`);
      assert.equal(status, 503);
      assert.equal(headers['x-culvert-error'], 'overloaded');
      assert.equal(headers['retry-after'], '3');
      const { error } = JSON.parse(text) as { error: { code: string; request_id: string } };
      assert.equal(error.code, 'overloaded');
      assert.match(error.request_id, /^[0-9a-f-]{36}$/);
      const health = await fetch(`http://127.0.0.1:${haproxy.operatorsPort}/health`);
      assert.equal(health.status, 503);
    } finally {
      await haproxy.close();
    }
  });

  test('answers one address that asks too often with 429, and lets those without limits alone', async () => {
    const limits = { CULVERT_MAX_REQUEST_RATE: '20' };
    for (const [unlimited, limited] of [
      ['198.51.100.0/24', true],
      ['127.0.0.1', false],
    ] as const) {
      const haproxy = await startHaproxy({ ...limits, CULVERT_UNLIMITED: unlimited });
      try {
        const statuses = new Set<number>();
        for (let i = 0; i < 40; i += 1) statuses.add((await visit(`http://app.localhost:${haproxy.httpPort}/`)).status);
        assert.deepEqual([...statuses], limited ? [503, 429] : [503]);
      } finally {
        await haproxy.close();
      }
    }
  });
});

describe('a node that closes the connection without an answer', () => {
  let haproxy: HaproxyServer;
  let node: LocalService<unknown>;
  /** Requests that reached it, without health checks. */
  let asked: string[] = [];

  before(async () => {
    haproxy = await startHaproxy();
    node = await startTcpService((socket) => {
      socket.once('data', (chunk) => {
        const line = chunk.toString('latin1').split('\r\n', 1)[0] ?? '';
        if (line.startsWith('GET /health/ready')) {
          socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
          return;
        }
        asked.push(line);
        socket.destroy();
      });
    });
    for (const slot of ['core1', 'core2']) {
      await haproxy.command(`set server cores/${slot} addr 127.0.0.1 port ${node.port}`);
      await haproxy.command(`set server cores/${slot} check-port ${node.port}`);
      await haproxy.command(`set server cores/${slot} state ready`);
    }
  });
  after(async () => {
    await haproxy.close();
    await node.close();
  });

  for (const method of ['POST', 'PATCH']) {
    test(`gets a ${method} once: it may have been done`, async () => {
      asked = [];
      const { status, headers } = await visit(`http://a.localhost:${haproxy.httpPort}/pay`, { method, body: 'x' });
      assert.equal(status, 502);
      assert.equal(headers['x-culvert-error'], 'connection_closed');
      assert.deepEqual(asked, [`${method} /pay HTTP/1.1`]);
    });
  }

  for (const method of ['GET', 'PUT']) {
    test(`is not the only one that gets a ${method}, which may be done twice`, async () => {
      asked = [];
      const body = method === 'PUT' ? { body: 'x' } : {};
      const { status } = await visit(`http://a.localhost:${haproxy.httpPort}/page`, { method, ...body });
      assert.equal(status, 502);
      assert.deepEqual(
        asked,
        Array.from({ length: 4 }, () => `${method} /page HTTP/1.1`),
      );
    });
  }
});
