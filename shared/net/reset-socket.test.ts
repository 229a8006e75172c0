import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const MODULE = fileURLToPath(new URL('./reset-socket.ts', import.meta.url));

/** A process that resets a connection right after `first`, and says which error the other side saw. */
function program(first: string): string {
  return `
    import { connect, createServer } from 'node:net';
    import { resetSocket } from ${JSON.stringify(MODULE)};
    const server = createServer((peer) => {
      peer.on('error', (error) => console.log(error.code)).on('close', () => server.close()).resume();
    });
    server.listen(0, '127.0.0.1', () => {
      const socket = connect(server.address().port, '127.0.0.1', () => { ${first} resetSocket(socket); });
    });
  `;
}

async function run(first: string): Promise<{ code: number | null; signal: string | null; output: string }> {
  const child = spawn(
    process.execPath,
    ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', program(first)],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 20_000,
      killSignal: 'SIGKILL',
    },
  );
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  return { code, signal, output: output.trim() };
}

test('the other side sees a reset', async () => {
  assert.deepEqual(await run(''), { code: 0, signal: null, output: 'ECONNRESET' });
});

test('a connection that was ended a moment before is closed, and the process can exit', async () => {
  assert.deepEqual(await run('socket.end();'), { code: 0, signal: null, output: '' });
});
