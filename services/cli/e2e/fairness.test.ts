import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type Nginx, startNginx } from '../../../shared/testkit/nginx.ts';
import { median, percentile } from '../../../shared/testkit/statistics.ts';
import { type CoreProcess, type CulvertProcess, startAgentProcess, startCoreProcess } from './processes.ts';

const MIB = 1024 ** 2;
const STREAMS = 500;
/** How long the service holds each request, milliseconds: 500 streams are open, yet no processor is busy with them. */
const HOLD = { least: 500, most: 1500 };
/** Milliseconds of one measurement: some 1,000 requests. */
const WINDOW = 2000;
/**
 * What a transfer may add to twice the latency without it, milliseconds. With a transfer on its session, a request's eight
 * steps each wait for the piece of it that a process has in hand, which is below a millisecond; the rest is for the
 * machine, whose processors other processes use as well. Behind all that a window lets in flight, a request would wait for
 * tens of milliseconds, and behind a visitor who does not read, for good.
 */
const SLACK = { median: 5, p99: 40 };
/** A machine that is busy with something else for a moment is no fault of the tunnel, which has its faults in each round. */
const ROUNDS = 2;
/** Growth of core or agent beyond what 500 idle streams take: two receive windows of 16 MiB and as much garbage. */
const MEMORY_GROWTH = 96 * MIB;

interface Latency {
  readonly median: number;
  readonly p99: number;
}

describe(`${STREAMS} streams on one session`, () => {
  let nginx: Nginx;
  let service: LocalService<unknown>;
  let core: CoreProcess;
  let agent: CulvertProcess;
  let otherCore: CoreProcess;
  let otherAgent: CulvertProcess;
  let visitors: Agent;
  let measuring = true;
  let samples: number[] = [];
  let inFlight = 0;
  let loops: Promise<void>[];

  before(async () => {
    nginx = await startNginx();
    const descriptor = openSync(join(nginx.root, 'large.bin'), 'w');
    ftruncateSync(descriptor, 64 * 1024 * MIB);
    closeSync(descriptor);
    service = await startHttpService((_request, response) => {
      const arrived = performance.now();
      setTimeout(
        () => response.end(`${arrived} ${performance.now()}`),
        HOLD.least + Math.random() * (HOLD.most - HOLD.least),
      );
    });
    core = await startCoreProcess();
    agent = await startAgentProcess(core, { app: service.url, files: nginx.url });
    otherCore = await startCoreProcess();
    otherAgent = await startAgentProcess(otherCore, { files: nginx.url });
    visitors = new Agent({ keepAlive: true, maxSockets: STREAMS });
    loops = Array.from({ length: STREAMS }, async () => {
      while (measuring) await sample();
    });
    // Until all connections are there and the code is compiled.
    await wait(HOLD.most * 1.5);
  });
  after(async () => {
    measuring = false;
    await Promise.allSettled(loops);
    visitors.destroy();
    for (const each of [agent, otherAgent, core.process, otherCore.process]) await each.kill();
    await service.close();
    await nginx.close();
  });

  /** One request; its sample is the time that it spent on the way there and back, in milliseconds. */
  async function sample(): Promise<void> {
    const sent = performance.now();
    inFlight += 1;
    const text = await new Promise<string>((resolve, reject) => {
      request({ port: core.publicPort, host: '127.0.0.1', agent: visitors, headers: { host: 'app.localhost' } })
        .on('response', (response) => {
          let body = '';
          response.setEncoding('latin1').on('data', (chunk: string) => {
            body += chunk;
          });
          response.on('end', () => resolve(body));
        })
        .on('error', reject)
        .end();
    });
    inFlight -= 1;
    const [arrived, answered] = text.split(' ').map(Number);
    assert.ok(arrived !== undefined && answered !== undefined, text);
    samples.push(arrived - sent + (performance.now() - answered));
  }

  async function measure(): Promise<Latency> {
    samples = [];
    await wait(WINDOW);
    assert.ok(samples.length > STREAMS, `only ${samples.length} requests`);
    return { median: median(samples), p99: percentile(samples, 0.99) };
  }

  /** Passes when `during` is as it should be in one of the rounds. */
  async function assertFair(
    t: TestContext,
    round: () => Promise<{ without: Latency; during: Latency }>,
  ): Promise<void> {
    const text = (latency: Latency): string => `${latency.median.toFixed(2)}/${latency.p99.toFixed(2)} ms`;
    const failures: string[] = [];
    for (let i = 0; i < ROUNDS; i += 1) {
      const { without, during } = await round();
      const told = `median/p99 ${text(during)}, without ${text(without)}`;
      t.diagnostic(told);
      assert.ok(inFlight > STREAMS * 0.9, `only ${inFlight} streams`);
      const fair = during.median <= 2 * without.median + SLACK.median && during.p99 <= 2 * without.p99 + SLACK.p99;
      if (fair) return;
      failures.push(told);
    }
    assert.fail(failures.join('; '));
  }

  function memory(): { core: number; agent: number } {
    return { core: core.process.peakMemory, agent: agent.peakMemory };
  }

  function assertMemory(idle: { core: number; agent: number }, note: (text: string) => void): void {
    const now = memory();
    note(
      `growth: core ${((now.core - idle.core) / MIB).toFixed(1)}, agent ${((now.agent - idle.agent) / MIB).toFixed(1)} MiB`,
    );
    for (const part of ['core', 'agent'] as const) {
      assert.ok(now[part] - idle[part] < MEMORY_GROWTH, `the ${part} grew by ${(now[part] - idle[part]) / MIB} MiB`);
    }
  }

  test('are not slowed by a visitor who reads a large file at 10 KB a second', async (t) => {
    const idle = memory();
    await assertFair(t, async () => {
      const without = await measure();
      const slow = await SlowVisitor.start(core.publicPort, 10_000);
      const during = await measure();
      await slow.stop();
      assert.ok(slow.bytes > 0.5 * 10_000 * (WINDOW / 1000), `it read ${slow.bytes} bytes`);
      return { without, during };
    });
    assertMemory(idle, (text) => t.diagnostic(text));
  });

  // The same download through another core and agent keeps the machine as busy, so the difference is what the session adds.
  test('are not slowed by a download at full speed more than by one on another session', async (t) => {
    const idle = memory();
    await assertFair(t, async () => {
      const elsewhere = await Download.start(otherCore.publicPort);
      const without = await measure();
      await elsewhere.finished();
      const download = await Download.start(core.publicPort);
      const during = await measure();
      const bytes = await download.finished();
      t.diagnostic(`${(bytes / MIB / DOWNLOAD_SECONDS).toFixed(0)} MiB/s`);
      assert.ok(bytes > 32 * MIB, `the download brought only ${bytes} bytes`);
      return { without, during };
    });
    assertMemory(idle, (text) => t.diagnostic(text));
  });
});

/** A little more than one measurement. */
const DOWNLOAD_SECONDS = (WINDOW + 300) / 1000;
const GET_FILE = 'GET /large.bin HTTP/1.1\r\nHost: files.localhost\r\n\r\n';

/** Reads so many bytes a second and leaves the rest in the socket. */
class SlowVisitor {
  bytes = 0;
  readonly #socket: Socket;
  readonly #timer: NodeJS.Timeout;

  static async start(port: number, bytesPerSecond: number): Promise<SlowVisitor> {
    const socket = connect({ port, host: '127.0.0.1' });
    await once(socket, 'connect');
    return new SlowVisitor(socket, bytesPerSecond);
  }

  private constructor(socket: Socket, bytesPerSecond: number) {
    this.#socket = socket;
    socket.write(GET_FILE);
    socket.on('readable', () => {});
    const share = bytesPerSecond / 20;
    this.#timer = setInterval(() => {
      const piece: unknown = socket.read(Math.min(share, socket.readableLength));
      if (Buffer.isBuffer(piece)) this.bytes += piece.length;
    }, 1000 / 20);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    const closed = once(this.#socket, 'close');
    this.#socket.destroy();
    await closed;
  }
}

/** A download by another process, as fast as it goes, which ends by itself. */
class Download {
  readonly #curl: ChildProcess;
  #told = '';

  static async start(port: number): Promise<Download> {
    const download = new Download(port);
    await until('the download runs', () => download.#told.includes('HTTP/1.1 200'));
    return download;
  }

  private constructor(port: number) {
    this.#curl = spawn('curl', [
      ...['--silent', '--max-time', String(DOWNLOAD_SECONDS), '--dump-header', '-', '--output', '/dev/null'],
      ...['--write-out', 'bytes=%{size_download};', '--header', 'Host: files.localhost'],
      `http://127.0.0.1:${port}/large.bin`,
    ]);
    this.#curl.stdout?.on('data', (chunk: Buffer) => {
      this.#told += chunk.toString();
    });
  }

  /** @returns bytes that it has brought */
  async finished(): Promise<number> {
    if (this.#curl.exitCode === null) await once(this.#curl, 'close');
    return Number(/bytes=(\d+);/.exec(this.#told)?.[1]);
  }
}
