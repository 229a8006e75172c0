import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { z } from 'zod';
import { loadCoreConfig } from '../shared/config/config.ts';

/** The compose files keep what they promise, whether or not Docker is there to run them. */

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

const Service = z.object({
  image: z.string(),
  restart: z.string().optional(),
  read_only: z.boolean().optional(),
  privileged: z.boolean().optional(),
  user: z.string().optional(),
  cap_drop: z.array(z.string()).optional(),
  cap_add: z.array(z.string()).optional(),
  security_opt: z.array(z.string()).optional(),
  container_name: z.string().optional(),
  ports: z.array(z.string()).optional(),
  networks: z.union([z.array(z.string()), z.record(z.string(), z.unknown())]).optional(),
  environment: z.record(z.string(), z.string().nullable()).optional(),
  secrets: z.array(z.string()).optional(),
  volumes: z.array(z.string()).optional(),
  stop_grace_period: z.string().optional(),
  healthcheck: z.object({ test: z.array(z.string()) }).optional(),
  logging: z.object({ driver: z.string(), options: z.record(z.string(), z.string()) }).optional(),
  deploy: z.object({ resources: z.object({ limits: z.object({ memory: z.string(), pids: z.number() }) }) }).optional(),
});
const Compose = z.object({
  services: z.record(z.string(), Service.partial({ image: true })),
  networks: z.record(z.string(), z.object({ internal: z.boolean().optional() })).optional(),
  secrets: z.record(z.string(), z.object({ file: z.string() })),
});

const main = read('docker-compose.yml');
const sentinel = read('docker-compose.sentinel.yml');

function read(name: string): z.infer<typeof Compose> {
  return Compose.parse(parse(readFileSync(path(name), 'utf8'), { merge: true, maxAliasCount: 1000 }));
}

/** Services that stand in one file as a whole; what an overlay changes of others is not one. */
const services = [...Object.entries(main.services), ...Object.entries(sentinel.services)].filter(
  ([, { image }]) => image !== undefined,
);

describe('every service', () => {
  test('has nothing that it does not need', () => {
    assert.equal(services.length, 14);
    for (const [name, service] of services) {
      assert.equal(service.read_only, true, name);
      assert.deepEqual(service.cap_drop, ['ALL'], name);
      assert.equal(service.cap_add, undefined, name);
      assert.equal(service.privileged, undefined, name);
      assert.ok(service.security_opt?.includes('no-new-privileges:true'), name);
    }
  });

  test('is bounded in memory, processes and logs, and comes back when it ends', () => {
    for (const [name, service] of services) {
      assert.ok(service.deploy?.resources.limits, name);
      assert.ok(service.logging?.options['max-size'], name);
      assert.equal(service.restart, 'unless-stopped', name);
      // That of a core is in the image.
      assert.ok(service.healthcheck !== undefined || name === 'core', name);
    }
  });

  test('has no name or address of its own that would keep it from being scaled', () => {
    const { core } = main.services;
    for (const [name, { container_name }] of services) assert.equal(container_name, undefined, name);
    assert.deepEqual([core?.ports, core?.volumes, core?.networks], [undefined, undefined, ['internal']]);
    assert.equal(core?.environment?.['TUNNEL_NODE_ID'], undefined);
  });
});

test('only HAProxy is published, and only for visitors and agents', () => {
  for (const [name, { ports = [] }] of services) {
    const inside = ports.map((port) => port.split(':').at(-1));
    assert.deepEqual(inside, name === 'haproxy' ? ['80', '443', '8443'] : [], name);
  }
});

test('the cluster and the services behind the agents lead nowhere else', () => {
  assert.deepEqual([main.networks?.['internal']?.internal, main.networks?.['demo']?.internal], [true, true]);
  for (const [name, { networks = [] }] of services) {
    const names = Array.isArray(networks) ? networks : Object.keys(networks);
    if (name !== 'haproxy') assert.ok(!(names.includes('edge') && names.includes('internal')), name);
  }
});

const directory = mkdtempSync(join(tmpdir(), 'culvert-compose-'));
after(() => rmSync(directory, { recursive: true }));

test('secrets.sh makes every secret that a service is given', () => {
  const made = spawnSync('bash', [path('secrets.sh'), directory], { encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr);
  for (const { file } of Object.values({ ...main.secrets, ...sentinel.secrets })) {
    assert.ok(existsSync(join(directory, file.replace('secrets/', ''))), file);
  }
  for (const [name, { secrets = [] }] of services) {
    for (const secret of secrets) assert.ok(secret in main.secrets || secret in sentinel.secrets, `${name} ${secret}`);
  }
});

test('no secret stands in the environment', () => {
  for (const [name, { environment = {} }] of services) {
    for (const [key, value] of Object.entries(environment)) {
      if (/SECRET|PASSWORD|TOKEN|KEY$/.test(key)) assert.match(value ?? '', /^\/run\/secrets\//, `${name} ${key}`);
      assert.doesNotMatch(value ?? '', /:\/\/[^/]*@/, `${name} ${key}`);
    }
  }
});

test('Docker waits longer for a core than the core drains', () => {
  const { core } = main.services;
  const drain = seconds(standard(core?.environment?.['TUNNEL_DRAIN_TIMEOUT'] ?? ''));
  assert.ok(drain >= 60);
  assert.ok(seconds(standard(core?.stop_grace_period ?? '')) >= drain + 10);
});

describe('the options that it gives', () => {
  for (const [name, overlay] of [
    ['a single Redis', {}],
    ['sentinels', sentinel.services['core']?.environment ?? {}],
  ] as const) {
    test(`are those of a core with ${name}`, () => {
      const env: Record<string, string> = {};
      const { core } = main.services;
      for (const [key, value] of Object.entries({ ...core?.environment, ...overlay })) {
        env[key] = secretPath(standard(value ?? ''));
      }
      const config = loadCoreConfig({ flags: {}, env });
      assert.match(config.redisUrl ?? '', name === 'sentinels' ? /^redis\+sentinel:\/\/:\w+@/ : /^redis:\/\/:\w+@/);
      assert.equal(config.publicUrl, 'https://{name}.localhost:443');
      assert.deepEqual(
        config.trustedProxies?.map(({ address, prefix }) => `${address}/${prefix}`),
        ['10.213.7.2/32'],
      );
    });
  }

  function secretPath(value: string): string {
    const [, secret] = /^\/run\/secrets\/(.+)$/.exec(value) ?? [];
    if (secret === undefined) return value;
    const { file } = main.secrets[secret] ?? assert.fail(`${secret} is no secret of the file`);
    return join(directory, file.replace('secrets/', ''));
  }
});

const compose = spawnSync('docker', ['compose', 'version'], { encoding: 'utf8' });
const skip = compose.status === 0 ? false : 'docker compose is not here';
for (const files of [['docker-compose.yml'], ['docker-compose.yml', 'docker-compose.sentinel.yml']]) {
  test(`docker compose accepts ${files.join(' with ')}`, { skip }, () => {
    const args = files.flatMap((file) => ['-f', path(file)]);
    const { status, stderr } = spawnSync('docker', ['compose', ...args, 'config', '--quiet'], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
  });
}

/** What `${NAME:-default}` is without the variable. */
function standard(value: string): string {
  return value.replace(/\$\{\w+:-([^}]*)\}/g, '$1');
}

function seconds(duration: string): number {
  const [, number] = /^(\d+)s$/.exec(duration) ?? assert.fail(`${duration} is not in seconds`);
  return Number(number);
}
