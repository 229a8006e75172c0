import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { ConfigError, type ConfigSources, load } from './load.ts';
import { option } from './option.ts';
import { defineSchema } from './schema.ts';
import { boolean, duration, integer, secretText } from './values.ts';

const SCHEMA = defineSchema({
  service: 'demo',
  envPrefix: 'DEMO_',
  options: {
    limit: option({ type: integer(1, 100), default: '10', help: '' }),
    'max-wait': option({ type: duration('1s', '1h'), default: '30s', help: '' }),
    'demo-key': option({ type: secretText(8, 'too short'), secret: true, help: '' }),
    verbose: option({ type: boolean(), default: 'false', help: '' }),
    must: option({ type: integer(0, 9), required: true, help: '' }),
  },
  checks: [
    {
      keys: ['limit', 'must'],
      problem: ({ limit, must }, name) => (limit > must ? undefined : `${name('limit')} must exceed ${name('must')}`),
    },
  ],
});

const directory = mkdtempSync(join(tmpdir(), 'culvert-load-'));
after(() => rmSync(directory, { recursive: true }));

function file(name: string, content: string): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

function problems(sources: ConfigSources): readonly string[] {
  try {
    load(SCHEMA, sources);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.code, 'invalid_config');
    return error.problems;
  }
  return assert.fail('the configuration was accepted');
}

describe('precedence', () => {
  const yaml = file('layers.yaml', 'limit: 30\nmax-wait: 3s\nmust: 3\n');

  test('flags win over the environment, over the file, over fallbacks, over defaults', () => {
    const fallbacks = [{ label: 'f', values: { limit: 40, 'demo-key': 'from-fallback', must: 4 } }];
    const env = { DEMO_LIMIT: '20', DEMO_MAX_WAIT: '2s' };
    const values = load(SCHEMA, { flags: { limit: '11' }, env, file: yaml, fallbacks });
    assert.deepEqual(values, { limit: 11, maxWait: 2000, demoKey: 'from-fallback', verbose: false, must: 3 });
  });

  test('the environment names the file when no flag does', () => {
    assert.equal(load(SCHEMA, { env: { DEMO_CONFIG: yaml } }).limit, 30);
    const other = file('other.json', '{"limit": 50, "must": 1, "verbose": true}');
    const values = load(SCHEMA, { env: { DEMO_CONFIG: yaml }, file: other });
    assert.deepEqual([values.limit, values.verbose], [50, true]);
  });

  test('an empty environment variable counts as absent', () => {
    assert.equal(load(SCHEMA, { env: { DEMO_LIMIT: '', DEMO_MUST: '1' } }).limit, 10);
  });

  test('a key that begins with the prefix is found by its short name and by its literal one', () => {
    assert.equal(load(SCHEMA, { env: { DEMO_KEY: 'short-name', DEMO_MUST: '1' } }).demoKey, 'short-name');
    assert.equal(load(SCHEMA, { env: { DEMO_DEMO_KEY: 'literal-name', DEMO_MUST: '1' } }).demoKey, 'literal-name');
  });
});

describe('what is not known', () => {
  test('is refused with the nearest name, wherever it stands', () => {
    const path = file('unknown.yaml', 'lmiit: 3\nmust: 1\n');
    assert.deepEqual(
      problems({ flags: { 'max-wiat': '1s' }, env: { DEMO_VERBOS: 'true', DEMO_CONFG: 'x' }, file: path }),
      [
        '--max-wiat is not known; did you mean max-wait?',
        'the environment variable DEMO_VERBOS is not known; did you mean DEMO_VERBOSE?',
        'the environment variable DEMO_CONFG is not known; did you mean DEMO_CONFIG?',
        `lmiit in ${path} is not known; did you mean limit?`,
      ],
    );
  });

  test('gets no suggestion when nothing is near', () => {
    assert.deepEqual(problems({ env: { DEMO_XYZZY: '1', DEMO_MUST: '1' } }), [
      'the environment variable DEMO_XYZZY is not known; see the options of demo',
    ]);
  });

  test('is tolerated where Kubernetes sets variables for a Service of the same name', () => {
    const env = {
      DEMO_MUST: '1',
      DEMO_SERVICE_HOST: '10.0.0.7',
      DEMO_SERVICE_PORT_HTTP: '80',
      DEMO_PORT: 'tcp://10.0.0.7:80',
      DEMO_PORT_80_TCP_ADDR: '10.0.0.7',
    };
    assert.equal(load(SCHEMA, { env }).must, 1);
  });

  test('cannot reach the prototype of the options', () => {
    const path = file('proto.json', '{"__proto__": {"limit": 1}, "constructor": 1, "must": 1}');
    assert.equal(problems({ file: path }).length, 2);
  });
});

describe('what is wrong', () => {
  test('is collected in full, each line naming source, option and what to do', () => {
    const path = file('wrong.yaml', 'max-wait: 30\nverbose:\n');
    assert.deepEqual(problems({ flags: { limit: 'many' }, env: { DEMO_KEY: 'hunter2' }, file: path }), [
      `verbose in ${path}: has no value; give one or remove the line`,
      '--limit: "many" is not an integer from 1 to 100',
      `max-wait in ${path}: 30 has no unit: write 30s or 30ms`,
      'DEMO_KEY: has 7 bytes: too short',
      'must is missing: give --must <number>, DEMO_MUST, or must in a configuration file',
    ]);
  });

  test('among several options is told by the names that the user wrote', () => {
    assert.deepEqual(problems({ flags: { limit: '3' }, env: { DEMO_MUST: '5' } }), ['--limit must exceed DEMO_MUST']);
  });

  test('in one option does not also fail the rules that read it', () => {
    assert.deepEqual(problems({ flags: { limit: '0', must: '5' } }), ['--limit: "0" is not an integer from 1 to 100']);
  });

  test('makes an error whose message is one line', () => {
    const error = new ConfigError(['a', 'b', 'c']);
    assert.equal(error.message, 'a (and 2 more)');
  });
});

describe('a configuration file', () => {
  for (const [name, content, expected] of [
    ['broken.yaml', 'a: b\nc: [1\n', /is not valid: line \d+, column \d+: /],
    ['twice.yaml', 'limit: 1\nlimit: 2\n', /line 2, column 1: Map keys must be unique/],
    ['broken.json', '{"limit": secret', /is not valid: /],
    ['yaml.json', 'limit: 3\n', /it is YAML, not JSON/],
    ['list.yaml', '- limit\n', /must be a map of options and values/],
    ['text.txt', 'limit: 3\n', /must end in \.yaml, \.yml or \.json/],
    ['big.yaml', `# ${'x'.repeat(1024 * 1024)}\n`, /is larger than 1MiB/],
    ['bomb.yaml', `a: &a [1,1,1,1,1,1,1,1,1,1]\n${bomb()}`, /its aliases cannot be resolved/],
  ] as const) {
    test(`${name} is refused in one line that says why`, () => {
      const [problem, ...more] = problems({ file: file(name, content), flags: { must: '1' } });
      assert.match(String(problem), expected);
      assert.doesNotMatch(String(problem), /secret|\n/);
      assert.deepEqual(more, []);
    });
  }

  test('that does not exist is refused', () => {
    const [problem] = problems({ file: join(directory, 'none.yaml') });
    assert.match(String(problem), /none\.yaml does not exist$/);
  });

  test('that is empty gives nothing', () => {
    assert.equal(load(SCHEMA, { file: file('empty.yaml', '# only a comment\n'), flags: { must: '1' } }).limit, 10);
  });

  test('that contains itself is refused and not followed', () => {
    const path = file('loop.yaml', 'limit: &a [*a]\nmust: 1\n');
    assert.deepEqual(problems({ file: path }), [`limit in ${path}: a list is not an integer from 1 to 100`]);
  });
});

function bomb(): string {
  return 'bcdefgh'.replace(/./g, (key) => {
    const before = String.fromCharCode(key.charCodeAt(0) - 1);
    return `${key}: &${key} [${Array(10).fill(`*${before}`).join(',')}]\n`;
  });
}
