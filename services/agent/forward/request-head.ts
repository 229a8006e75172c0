import type { RequestHead } from '../../../shared/protocol/heads.ts';
import { contentLength } from './fields.ts';
import type { Target } from './target.ts';

/** How the request body is framed on the way to the service. */
export interface RequestPlan {
  /** Request line and header section, empty line included; Latin-1. Undefined when `refused`. */
  readonly text: string;
  /** Bytes of the body that Content-Length announces, -1 when it does not stand there. */
  readonly length: number;
  readonly chunked: boolean;
  /** An upgrade is asked for: without Content-Length no body is framed and bytes wait for the 101. */
  readonly upgrade: boolean;
  /** Why the head cannot be sent without leaving its end in doubt. */
  readonly refused: string | undefined;
}

/** RFC 9110 section 8.6: a request whose method gives a body meaning says so when there is none. */
const METHODS_WITH_BODY = new Set(['POST', 'PUT', 'PATCH']);

/**
 * The head as it goes to the service. The core has taken hop-by-hop fields out; those that decide framing are taken out
 * here as well, so that this hop's framing stands on its own (RFC 9112 section 6.1).
 *
 * `bodyBytes`: body bytes at hand. `end`: there are no more.
 */
export function planRequest(
  head: RequestHead,
  target: Target,
  host: string | undefined,
  bodyBytes: number,
  end: boolean,
): RequestPlan {
  const { headers } = head;
  let text = `${head.method} ${head.target} HTTP/1.1\r\n`;
  let length = -1;
  let upgrade = '';
  let hasHost = false;
  let connection = '';
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    const value = headers[i + 1] ?? '';
    // By length first: most names are never lower-cased.
    switch (name.length) {
      case 2:
        if (name.toLowerCase() !== 'te') break;
        if (!/\btrailers\b/i.test(value) || connection.includes('TE')) continue;
        // RFC 9110 section 10.1.4: TE is of one hop and must be named in Connection.
        connection = connection === '' ? 'TE' : `${connection}, TE`;
        text += 'TE: trailers\r\n';
        continue;
      case 4:
        if (name.toLowerCase() !== 'host') break;
        if (hasHost) return refuse('more than one Host field (RFC 9112 section 3.2)');
        hasHost = true;
        text += `Host: ${host ?? value}\r\n`;
        continue;
      case 7:
        if (name.toLowerCase() !== 'upgrade') break;
        upgrade = upgrade === '' ? value : `${upgrade}, ${value}`;
        continue;
      case 10:
        if (name.toLowerCase() === 'connection' || name.toLowerCase() === 'keep-alive') continue;
        break;
      case 14: {
        if (name.toLowerCase() !== 'content-length') break;
        const announced = contentLength(value);
        if (announced < 0 || (length >= 0 && length !== announced)) return refuse('Content-Length is not one number');
        if (length < 0) text += `${name}: ${announced}\r\n`;
        length = announced;
        continue;
      }
      case 16:
        if (name.toLowerCase() === 'proxy-connection') continue;
        break;
      case 17:
        if (name.toLowerCase() === 'transfer-encoding') continue;
        break;
    }
    text += `${name}: ${value}\r\n`;
  }
  if (!hasHost) text += `Host: ${host ?? target.authority}\r\n`;
  // A body and then another protocol on one stream cannot be told apart here, and an upgrade is only ever an offer
  // (RFC 9110 section 7.8).
  const upgrading = upgrade !== '' && length <= 0;
  if (upgrading) {
    text += `Upgrade: ${upgrade}\r\n`;
    connection = connection === '' ? 'Upgrade' : `${connection}, Upgrade`;
  }
  if (connection !== '') text += `Connection: ${connection}\r\n`;
  const chunked = length < 0 && !upgrading && !end;
  if (chunked) {
    text += 'Transfer-Encoding: chunked\r\n';
  } else if (length < 0 && !upgrading && (bodyBytes > 0 || METHODS_WITH_BODY.has(head.method))) {
    length = bodyBytes;
    text += `Content-Length: ${length}\r\n`;
  }
  return { text: `${text}\r\n`, length, chunked, upgrade: upgrading, refused: undefined };
}

function refuse(why: string): RequestPlan {
  return { text: '', length: -1, chunked: false, upgrade: false, refused: why };
}
