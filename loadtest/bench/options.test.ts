import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Command } from 'commander';
import { plainEnvironment } from './checkout.ts';
import { rotate } from './measure.ts';
import { decimal, parseCommand, wholeNumber } from './options.ts';
import { requirePrograms } from './rig.ts';

function parse(...args: string[]): { rounds: number; minShare?: number } {
  const command = new Command('bench')
    .option('--rounds <number>', '', wholeNumber(1, 10), 5)
    .option('--min-share <number>', '', decimal(0, 1));
  return parseCommand(command, ['node', 'bench', ...args]);
}

describe('options', () => {
  test('numbers are read, and defaults stay', () => {
    assert.deepEqual({ ...parse('--min-share', '0.15') }, { rounds: 5, minShare: 0.15 });
    assert.equal(parse('--rounds', '10').rounds, 10);
  });

  for (const args of [
    ['--rounds', '0'],
    ['--rounds', '11'],
    ['--rounds', '1.5'],
    ['--min-share', '2'],
    ['--nothing'],
    ['x'],
  ]) {
    test(`"${args.join(' ')}" is wrong use`, () => {
      assert.throws(() => parse(...args), { code: 'invalid_config' });
    });
  }

  test('variables that would change the configuration are kept from what is measured', () => {
    const environment = { PATH: '/bin', TUNNEL_LOG_LEVEL: 'debug', AGENT_TOKEN: 'x', NODE_OPTIONS: '--inspect' };
    assert.deepEqual(plainEnvironment(environment), { PATH: '/bin' });
  });

  test('each round starts with the next target', () => {
    const orders = [0, 1, 2, 3].map((round) => rotate(['a', 'b', 'c'], round).join(''));
    assert.deepEqual(orders, ['abc', 'bca', 'cab', 'abc']);
  });

  test('an old Node is refused before anything starts', () => {
    assert.throws(() => requirePrograms('v20.19.0'), { code: 'invalid_config' });
  });
});
