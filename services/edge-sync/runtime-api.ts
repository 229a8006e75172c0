import { connect, type Socket } from 'node:net';
import { formatRuntimeAddress, type RuntimeAddress } from '../../shared/config/runtime-address.ts';

/** HAProxy's runtime API (its management guide, section 9.3): one connection for each command line. */

/** One command line may take so long, milliseconds: HAProxy gives the API little time while it is busy. */
const TIMEOUT = 10_000;
/** No answer that is asked for here is near it, bytes. */
const MAX_ANSWER = 16 * 1024 * 1024;
/**
 * Bytes of one command line, payload included. It must fit into a buffer of HAProxy (`tune.bufsize`, 16 KiB by default).
 */
export const MAX_COMMAND = 12_000;

export class RuntimeApi {
  readonly #address: RuntimeAddress;
  readonly #sockets = new Set<Socket>();

  constructor(address: RuntimeAddress) {
    this.#address = address;
  }

  get name(): string {
    return formatRuntimeAddress(this.#address);
  }

  /**
   * @param command one command, or several with `;` between them, or one with a payload
   * @returns what HAProxy wrote; the API has no common form for success and failure
   * @throws Error when it cannot be reached or does not answer in time
   */
  run(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect('path' in this.#address ? { path: this.#address.path } : this.#address);
      this.#sockets.add(socket);
      const pieces: Buffer[] = [];
      let size = 0;
      let isComplete = false;
      socket.setTimeout(TIMEOUT, () => socket.destroy(new Error(`no answer within ${TIMEOUT} ms`)));
      socket.on('data', (piece: Buffer) => {
        pieces.push(piece);
        size += piece.length;
        if (size > MAX_ANSWER) socket.destroy(new Error(`an answer of more than ${MAX_ANSWER} bytes`));
      });
      socket.on('end', () => {
        isComplete = true;
      });
      socket.on('error', reject);
      socket.on('close', () => {
        this.#sockets.delete(socket);
        if (isComplete) resolve(Buffer.concat(pieces).toString());
        else reject(new Error('the connection broke'));
      });
      socket.write(`${command}\n`);
    });
  }

  /** Runs commands of which each answers nothing but a line end when it succeeds, as many at a time as fit. @throws Error */
  async runQuietly(commands: readonly string[]): Promise<void> {
    for (const line of packed(commands, ';')) {
      const answer = (await this.run(line)).trim();
      if (answer !== '') throw new Error(`${line.slice(0, 100)}: ${answer.slice(0, 200)}`);
    }
  }

  /** What still waits for an answer fails. */
  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** The pieces joined by `separator` into as few lines as their length allows. */
export function* packed(pieces: Iterable<string>, separator: string): Generator<string> {
  let line = '';
  for (const piece of pieces) {
    if (line !== '' && line.length + separator.length + piece.length > MAX_COMMAND) {
      yield line;
      line = '';
    }
    line = line === '' ? piece : line + separator + piece;
  }
  if (line !== '') yield line;
}
