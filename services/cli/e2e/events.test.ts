import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setInterval } from 'node:timers/promises';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { median } from '../../../shared/testkit/statistics.ts';
import { startTunnel, type Tunnel } from './tunnel.ts';

const EVENTS = 50;
/** Milliseconds between events: longer than a tunnel may take, so that none is carried along by the next. */
const INTERVAL = 25;
/** Longest way from the service to the visitor, milliseconds. */
const LONGEST_WAY = 20;
/** A machine that stalls once is no fault of the tunnel; a tunnel that holds events back does it in each round. */
const ROUNDS = 3;

describe('server-sent events', () => {
  let service: LocalService<unknown>;
  let tunnel: Tunnel;

  before(async () => {
    service = await startHttpService(async (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      let left = EVENTS;
      for await (const _ of setInterval(INTERVAL)) {
        response.write(`data: ${performance.now()}\n\n`);
        left -= 1;
        if (left === 0) break;
      }
      response.end();
    });
    tunnel = await startTunnel({ services: { app: service.url } });
  });
  after(async () => {
    await tunnel.close();
    await service.close();
  });

  /** Milliseconds from the service's write to the visitor's read, of each event. */
  async function ways(headers: Record<string, string>): Promise<number[]> {
    const taken: number[] = [];
    await visit(`${tunnel.url('app')}/`, {
      headers,
      onData: (chunk) => {
        const now = performance.now();
        for (const [, sent] of chunk.toString().matchAll(/^data: ([\d.]+)$/gm)) taken.push(now - Number(sent));
      },
    });
    return taken;
  }

  for (const encoding of ['identity', 'gzip, br']) {
    test(`arrive one by one within ${LONGEST_WAY} ms for a visitor who accepts ${encoding}`, async (t) => {
      const slowest: number[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const taken = await ways({ accept: 'text/event-stream', 'accept-encoding': encoding });
        assert.equal(taken.length, EVENTS);
        slowest.push(Math.max(...taken));
        t.diagnostic(`median ${median(taken).toFixed(2)} ms, slowest ${Math.max(...taken).toFixed(2)} ms`);
        if (median(taken) < LONGEST_WAY / 2 && Math.max(...taken) < LONGEST_WAY) return;
      }
      assert.fail(`the slowest of ${EVENTS} events took ${slowest.map((ms) => ms.toFixed(1)).join(', ')} ms`);
    });
  }
});
