import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Status } from './client.ts';
import { renderStatus } from './render.ts';
import { table } from './table.ts';

const NOW = 100_000_000;
const RATES = { requests: 2.5, errors: 0, relayed: 0, bytesIn: 0, bytesOut: 0 };

const STATUS: Status = {
  overview: {
    ...{ agents: 1, sessions: 2, tunnels: 3, endpoints: 2, accounts: 1, partial: [] },
    cluster: { nodes: { total: 2, up: 2, draining: 0 }, visitors: 0, streams: 0, rates: RATES },
  },
  nodes: {
    items: ['node-1', 'node-2'].map((nodeId) => ({
      ...{
        nodeId,
        state: 'up',
        version: '1.0.0',
        startedAt: NOW - 3_700_000,
        relayAddr: '',
        agentAddr: '',
        sessions: 1,
      },
      ...{ isSelf: nodeId === 'node-1', figures: null },
    })),
    ...{
      total: 2,
      next: null,
      partial: [{ nodeId: 'node-2', code: 'timeout', message: 'node node-2 did not answer' }],
    },
  },
  agents: {
    items: [
      {
        ...{ agentId: 'laptop', accountId: 'acme', since: NOW - 61_000 },
        sessions: ['node-1', 'node-2'].map((nodeId, slot) => ({
          ...{ id: `laptop/i/${slot}`, epoch: 1, instanceId: 'i', slot, nodeId, openedAt: NOW, figures: null },
        })),
      },
    ],
    ...{ total: 1, next: null, partial: [] },
  },
  tunnels: {
    items: [
      {
        ...{ name: 'api', url: 'http://api.localhost:8080', accountId: 'acme', createdAt: NOW, isHealthy: true },
        endpoints: [
          { agentId: 'laptop', nodeId: 'node-1', sessionId: 'laptop/i/0', epoch: 1, localAddr: '', isHealthy: true },
        ],
      },
    ],
    ...{ total: 3, next: 'x', isComplete: true },
  },
};

describe('the status of a cluster', () => {
  test('shows nodes, agents, tunnels and who is where, in aligned columns', () => {
    assert.deepEqual(renderStatus(STATUS, undefined, NOW).split('\n'), [
      '2 nodes, 1 agent, 2 sessions, 3 tunnels, 2.5 requests/s',
      '',
      'NODE      STATE             UP  SESSIONS  STREAMS  REQ/S  LAG  MEMORY  VERSION',
      'node-1 *  up             1h 1m         1        -      -    -       -  1.0.0',
      'node-2    up, no answer  1h 1m         1        -      -    -       -  1.0.0',
      '',
      'AGENT   ACCOUNT  NODES           FROM  RTT  STREAMS     UP  VERSION',
      'laptop  acme     node-1, node-2  -       -        -  1m 1s  -',
      '',
      'TUNNEL  ACCOUNT  HEALTH  SERVED BY      URL',
      'api     acme     ok      laptop@node-1  http://api.localhost:8080',
      '… and 2 more tunnels: --limit, --search',
      '',
      '! node-2: node node-2 did not answer',
      '',
    ]);
  });

  test('keeps to a narrow terminal by leaving columns out, never by cutting names', () => {
    for (const width of [40, 60, 80]) {
      const lines = renderStatus(STATUS, width, NOW).split('\n');
      const tables = lines.filter((line) => /^(NODE|node|AGENT|laptop|TUNNEL|api)/.test(line));
      assert.equal(tables.length, 7);
      for (const line of tables) assert.ok(line.length <= width, line);
      assert.ok(tables.some((line) => line.includes('laptop@node-1')));
    }
  });

  test('of one account has no nodes', () => {
    const overview = { ...STATUS.overview, cluster: null };
    const text = renderStatus({ ...STATUS, overview, nodes: undefined }, undefined, NOW);
    assert.match(text, /^1 agent, 2 sessions, 3 tunnels\n\nAGENT/);
    assert.doesNotMatch(text, /^NODE /m);
  });
});

describe('a table', () => {
  test('lets no cell command the terminal', () => {
    const lines = table([{ title: 'A' }], [['\u001b[31mred\u0007\u202e'], ['two\nlines']]);
    assert.deepEqual(lines, ['A', '?[31mred?', 'two?lines']);
  });

  test('stays too wide rather than losing what nothing may be left out of', () => {
    assert.deepEqual(table([{ title: 'A' }, { title: 'B' }], [['12345', '67890']], 3), ['A      B', '12345  67890']);
  });
});
