import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { repositoryRoot } from './options.ts';
import { replaceResults } from './results-page.ts';

const PAGE = readFileSync(join(repositoryRoot(), 'loadtest', 'README.md'), 'utf8');

describe('results in the page', () => {
  test('new results replace the old ones and nothing else', () => {
    const once = replaceResults(PAGE, '| first |');
    const twice = replaceResults(once, '| second |');
    assert.match(twice, /\n\n\| second \|\n\n/);
    assert.ok(!twice.includes('first |'));
    assert.equal(replaceResults(twice, '| first |'), once);
    assert.equal(twice.split('<!--')[0], PAGE.split('<!--')[0]);
    assert.equal(twice.split('-->').at(-1), PAGE.split('-->').at(-1));
  });

  test('a page without a place for results is refused', () => {
    assert.throws(() => replaceResults('# Load tests', 'x'), { code: 'internal_error' });
  });
});
