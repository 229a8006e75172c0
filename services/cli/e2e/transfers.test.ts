import assert from 'node:assert/strict';
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { closeSync, createReadStream, ftruncateSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { type LocalService, startHttpService } from '../../../shared/testkit/local-service.ts';
import { type Nginx, startNginx } from '../../../shared/testkit/nginx.ts';
import { type CoreProcess, type CulvertProcess, startAgentProcess, startCoreProcess } from './processes.ts';

/** CULVERT_HEAVY=1 moves a gigabyte. */
const FILE_BYTES = process.env['CULVERT_HEAVY'] === '1' ? 1024 ** 3 : 64 * 1024 ** 2;
/**
 * What one transfer may add to the peak memory of core or agent, bytes, whatever its size: a receive window at its largest
 * (16 MiB), as much again in garbage that the collector has not seen yet, and the sockets' and parsers' own buffers.
 */
const MEMORY_GROWTH = 96 * 1024 ** 2;

describe(`${FILE_BYTES / 1024 ** 2} MiB through a core and an agent in processes of their own`, () => {
  let nginx: Nginx;
  let service: LocalService<unknown>;
  let core: CoreProcess;
  let agent: CulvertProcess;
  let file: string;
  let idle: { core: number; agent: number };

  before(async () => {
    nginx = await startNginx();
    file = join(nginx.root, 'large.bin');
    makeFile(file, FILE_BYTES);
    service = await startHttpService(async (request, response) => {
      response.end(await digest(request as AsyncIterable<Buffer>));
    });
    core = await startCoreProcess();
    agent = await startAgentProcess(core, { files: nginx.url, app: service.url });
    // The first requests load code, which is not what is measured.
    for (let i = 0; i < 50; i += 1) await visit(`${core.url('app')}/`, { method: 'POST', body: 'warm' });
    idle = { core: core.process.peakMemory, agent: agent.peakMemory };
  });
  after(async () => {
    await agent.kill();
    await core.process.kill();
    await service.close();
    await nginx.close();
  });

  function assertMemory(): void {
    const growth = { core: core.process.peakMemory - idle.core, agent: agent.peakMemory - idle.agent };
    for (const [part, bytes] of Object.entries(growth)) {
      assert.ok(bytes < MEMORY_GROWTH, `the ${part} grew by ${(bytes / 1024 ** 2).toFixed(1)} MiB`);
    }
  }

  test('a download of nginx arrives byte for byte, in bounded memory', async () => {
    const hash = createHash('sha256');
    const { status, complete, headers } = await visit(`${core.url('files')}/large.bin`, {
      onData: (chunk) => void hash.update(chunk),
    });
    assert.deepEqual([status, complete, headers['content-length']], [200, true, String(FILE_BYTES)]);
    assert.equal(hash.digest('hex'), await digest(createReadStream(file)));
    assertMemory();
  });

  test('an upload arrives byte for byte, in bounded memory', async () => {
    const answer = await visit(`${core.url('app')}/`, {
      method: 'PUT',
      headers: { 'content-length': FILE_BYTES },
      body: createReadStream(file),
    });
    assert.equal(answer.text, await digest(createReadStream(file)));
    assertMemory();
  });

  test('an upload without a length arrives byte for byte, in bounded memory', async () => {
    const answer = await visit(`${core.url('app')}/`, { method: 'POST', body: createReadStream(file) });
    assert.equal(answer.text, await digest(createReadStream(file)));
    assertMemory();
  });
});

/** Random at both ends and in the middle, a hole in between: any piece lost or moved changes the hash. */
function makeFile(path: string, size: number): void {
  const descriptor = openSync(path, 'w');
  ftruncateSync(descriptor, size);
  const piece = 1024 * 1024;
  for (const at of [0, Math.floor(size / 2) - 7, size - piece]) writeSync(descriptor, randomBytes(piece), 0, piece, at);
  closeSync(descriptor);
}

async function digest(source: AsyncIterable<Buffer | string>): Promise<string> {
  const hash: Hash = createHash('sha256');
  for await (const chunk of source) hash.update(chunk);
  return hash.digest('hex');
}
