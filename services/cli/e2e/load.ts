import { createHash } from 'node:crypto';
import { Agent, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as wait } from 'node:timers/promises';
import { visit } from '../../../shared/testkit/http-visitor.ts';
import { REDISPATCHES } from './balancer.ts';

/** Steady traffic through all nodes of a cluster, as a balancer spreads it, with every answer checked. */

/** A node that visitors ask, or what stands in front of all. */
interface Target {
  readonly name: string;
  url(tunnel: string, path?: string): string;
}

/** Says whom a visitor asks. */
interface Spread {
  next(): Target;
  /** Another than this one, which refused a connection. */
  instead(of: Target): Promise<Target>;
}

/** One request and what became of it. Times are milliseconds of `performance.now()`. */
export interface Outcome {
  readonly tunnel: string;
  /** Node that the visitor asked. */
  readonly node: string;
  readonly method: 'GET' | 'POST';
  readonly started: number;
  readonly ended: number;
  /** Undefined when all is well. */
  readonly fault: string | undefined;
}

/** Between two requests of one worker, milliseconds. */
const PACE = 10;
/** An answer that takes longer is a fault, milliseconds. */
const PATIENCE = 30_000;

export class Load {
  readonly #balancer: Spread;
  readonly #connections = new Agent({ keepAlive: true, maxSockets: 64 });
  readonly #outcomes: Outcome[] = [];
  readonly #workers: Promise<void>[] = [];
  #stopped = false;

  /** @param workers requests at a time, for each tunnel */
  constructor(balancer: Spread, tunnels: readonly string[], workers = 2) {
    this.#balancer = balancer;
    for (const tunnel of tunnels) {
      for (let i = 0; i < workers; i += 1) this.#workers.push(this.#work(tunnel, i));
    }
  }

  get outcomes(): readonly Outcome[] {
    return this.#outcomes;
  }

  /** What went wrong with requests that began at or after `since`. */
  faults(since = 0): readonly Outcome[] {
    return this.#outcomes.filter(({ fault, started }) => fault !== undefined && started >= since);
  }

  /** Milliseconds that the answers to requests begun in the interval took, shortest first. */
  latencies(from: number, to: number): readonly number[] {
    return this.#outcomes
      .filter(({ started }) => started >= from && started < to)
      .map(({ started, ended }) => ended - started)
      .sort((a, b) => a - b);
  }

  /** Resolves when the requests in flight have ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
    this.#connections.destroy();
  }

  async #work(tunnel: string, worker: number): Promise<void> {
    for (let i = 0; !this.#stopped; i += 1) {
      const method = i % 3 === 0 ? 'POST' : 'GET';
      const path = `/${tunnel}/${worker}/${i}?size=${(i * 977) % 30_000}`;
      const body = method === 'POST' ? Buffer.alloc((i * 619) % 40_000, path) : undefined;
      const started = performance.now();
      const { node, fault } = await this.#ask(tunnel, method, path, body);
      this.#outcomes.push({ tunnel, node, method, started, ended: performance.now(), fault });
      await wait(PACE);
    }
  }

  async #ask(
    tunnel: string,
    method: 'GET' | 'POST',
    path: string,
    body: Buffer | undefined,
  ): Promise<{ readonly node: string; readonly fault: string | undefined }> {
    let node = this.#balancer.next();
    for (let attempt = 0; ; attempt += 1) {
      try {
        return { node: node.name, fault: await this.#visit(node, tunnel, method, path, body) };
      } catch (error) {
        const refused = error instanceof Error && 'code' in error && error.code === 'ECONNREFUSED';
        if (!refused || attempt === REDISPATCHES) return { node: node.name, fault: String(error) };
        node = await this.#balancer.instead(node);
      }
    }
  }

  async #visit(
    node: Target,
    tunnel: string,
    method: string,
    path: string,
    body: Buffer | undefined,
  ): Promise<string | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const impatient = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE} ms`)), PATIENCE);
    });
    const asked = visit(node.url(tunnel, path), {
      method,
      agent: this.#connections,
      ...(body === undefined ? {} : { body, headers: { 'content-length': body.length } }),
    });
    try {
      const answer = await Promise.race([asked, impatient]);
      if (!answer.complete) return `${answer.status}, cut off after ${answer.body.length} bytes`;
      if (answer.status !== 200) return `${answer.status} ${answer.text.slice(0, 200)}`;
      return answer.body.equals(expected(tunnel, method, path, body))
        ? undefined
        : 'another body than the service sent';
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The service behind a tunnel of the test: its answer tells the tunnel, the request and the body that it got. */
export function answerFor(tunnel: string, request: IncomingMessage, response: ServerResponse): void {
  const { method = '', url = '' } = request;
  if (url.startsWith('/slow')) {
    trickle(url, response);
    return;
  }
  const body: Buffer[] = [];
  request.on('data', (chunk: Buffer) => body.push(chunk));
  request.on('end', () => {
    const answer = expected(tunnel, method, url, Buffer.concat(body));
    response.writeHead(200, { 'content-length': answer.length }).end(answer);
  });
}

/** Sends `count` pieces of 1,000 bytes, 100 ms apart: `/slow?count=…`. */
function trickle(url: string, response: ServerResponse): void {
  const count = Number(new URL(url, 'http://x').searchParams.get('count'));
  let sent = 0;
  response.writeHead(200, { 'content-length': count * 1000 });
  const timer = setInterval(() => {
    response.write(Buffer.alloc(1000, `${sent % 10}`));
    sent += 1;
    if (sent === count) {
      clearInterval(timer);
      response.end();
    }
  }, 100);
  response.on('close', () => clearInterval(timer));
}

function expected(tunnel: string, method: string, path: string, body: Buffer | undefined): Buffer {
  const hash = createHash('sha256')
    .update(body ?? '')
    .digest('hex');
  const size = Number(new URL(path, 'http://x').searchParams.get('size'));
  return Buffer.from(`${tunnel} ${method} ${path} ${hash} `.padEnd(size, path));
}
