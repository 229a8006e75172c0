import {
  type Agent,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request,
} from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

export interface VisitOptions {
  readonly method?: string;
  /** A flat list keeps order, case and duplicates; it then needs its own Host. */
  readonly headers?: OutgoingHttpHeaders | readonly string[];
  readonly body?: string | Buffer | Readable;
  /** Sent after a body without Content-Length. */
  readonly trailers?: OutgoingHttpHeaders;
  /** Default: a connection of its own for each visit. */
  readonly agent?: Agent;
  /** Takes the body, piece by piece; `Visit.body` is then empty. */
  readonly onData?: (chunk: Buffer) => void;
}

export interface Visit {
  readonly status: number;
  readonly reason: string;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly rawTrailers: readonly string[];
  readonly body: Buffer;
  readonly text: string;
  /** False when the connection broke before the end of the body. */
  readonly complete: boolean;
  /** Status codes of interim responses. */
  readonly interim: readonly number[];
}

/** Visits a URL whose host is a name of this machine, whatever the resolver thinks of it. Rejects without a response. */
export async function visit(url: string, options: VisitOptions = {}): Promise<Visit> {
  const { port, host, pathname, search } = new URL(url);
  const interim: number[] = [];
  const list = Array.isArray(options.headers);
  const sent = request({
    host: '127.0.0.1',
    port,
    path: `${pathname}${search}`,
    method: options.method ?? 'GET',
    agent: options.agent ?? false,
    maxHeaderSize: 256 * 1024,
    setHost: !list,
    headers: list ? (options.headers as readonly string[]) : { host, ...(options.headers as OutgoingHttpHeaders) },
  });
  sent.on('information', ({ statusCode }) => interim.push(statusCode));
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    sent.on('response', resolve);
    // After the response, an error is told by the response being incomplete.
    sent.on('error', reject);
    sent.on('upgrade', (_response, socket) => {
      socket.destroy();
      reject(new Error('the answer switched protocols'));
    });
  });
  const { body, trailers } = options;
  if (body instanceof Readable) pipeline(body, sent).catch(() => {});
  else {
    if (body !== undefined) sent.write(body);
    if (trailers !== undefined)
      for (const [name, value] of Object.entries(trailers)) sent.addTrailers({ [name]: value });
    sent.end();
  }
  const response = await answered;
  const chunks: Buffer[] = [];
  const complete = await new Promise<boolean>((resolve) => {
    response.on('data', options.onData ?? ((chunk: Buffer) => chunks.push(chunk)));
    response.on('error', () => {});
    response.on('close', () => resolve(response.complete));
  });
  const received = Buffer.concat(chunks);
  return {
    status: response.statusCode ?? 0,
    reason: response.statusMessage ?? '',
    headers: response.headers,
    rawHeaders: response.rawHeaders,
    rawTrailers: response.rawTrailers,
    body: received,
    get text() {
      return received.toString();
    },
    complete,
    interim,
  };
}

/** The values of all fields of this name, in order. */
export function fieldValues(raw: readonly string[], name: string): string[] {
  return raw.filter((_, i) => i % 2 === 1 && raw[i - 1]?.toLowerCase() === name.toLowerCase());
}
