import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { AGENT_SCHEMA } from './agent-options.ts';
import { CORE_SCHEMA } from './core-options.ts';
import { EDGE_SYNC_SCHEMA } from './edge-sync-options.ts';
import { gather, load } from './load.ts';
import type { OptionMap } from './option.ts';
import { exampleFile, referencePage } from './reference.ts';
import { envName, type Schema } from './schema.ts';

test('REFERENCE.md is what the schemas say; renew it with reference.ts --write', () => {
  assert.equal(readFileSync(new URL('./REFERENCE.md', import.meta.url), 'utf8'), referencePage());
});

test('the example of the core comes to exactly the defaults', () => {
  const flags = { 'jwt-secret': 'k'.repeat(32), 'node-id': 'n' };
  withExample(CORE_SCHEMA, (file) =>
    assert.deepEqual(load(CORE_SCHEMA, { flags, file }), load(CORE_SCHEMA, { flags })),
  );
});

test('the example of the agent comes to exactly the defaults', () => {
  const flags = { token: 't', server: 's', local: 'web=1' };
  withExample(AGENT_SCHEMA, (file) =>
    assert.deepEqual(load(AGENT_SCHEMA, { flags, file }), load(AGENT_SCHEMA, { flags })),
  );
});

test('the example of edge-sync comes to exactly the defaults', () => {
  const flags = { 'redis-url': 'redis://r' };
  withExample(EDGE_SYNC_SCHEMA, (file) =>
    assert.deepEqual(load(EDGE_SYNC_SCHEMA, { flags, file }), load(EDGE_SYNC_SCHEMA, { flags })),
  );
});

for (const schema of [CORE_SCHEMA, AGENT_SCHEMA, EDGE_SYNC_SCHEMA]) {
  test(`every option of the ${schema.service} has help, and an environment name that no other has`, () => {
    const entries = Object.entries<{ readonly help: string }>(schema.options);
    const names = new Set(entries.map(([key]) => envName(String(schema.envPrefix), key)));
    assert.equal(names.size, entries.length);
    for (const [key, { help }] of entries) assert.match(help, /^[A-Z].*\.$/, key);
  });
}

function withExample<S extends OptionMap>(schema: Schema<S>, check: (file: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-example-'));
  try {
    const file = join(directory, 'example.yaml');
    writeFileSync(file, exampleFile(schema));
    assert.ok(gather(schema, { file }).given.size > 5);
    check(file);
  } finally {
    rmSync(directory, { recursive: true });
  }
}
