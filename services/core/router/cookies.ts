import type { FlatHeaders } from '../../../shared/protocol/heads.ts';

export interface TakenCookie {
  /** The fields without the cookie. The same array when it was not there. */
  readonly headers: FlatHeaders;
  /** Its values, in the order they stood. A visitor may send several: with other paths, or of a parent domain. */
  readonly values: readonly string[];
}

/** Takes a cookie out of request fields and leaves every other byte of them as it was (RFC 6265 section 4.2.1). */
export function takeCookie(headers: FlatHeaders, name: string): TakenCookie {
  const values: string[] = [];
  const kept: FlatHeaders = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const field = headers[i] ?? '';
    const value = headers[i + 1] ?? '';
    if (field.length !== 6 || field.toLowerCase() !== 'cookie' || !value.includes(name)) {
      kept.push(field, value);
      continue;
    }
    const before = values.length;
    const rest = value.split(';').filter((pair) => {
      const taken = cookieValue(pair, name);
      if (taken !== undefined) values.push(taken);
      return taken === undefined;
    });
    if (values.length === before) kept.push(field, value);
    else if (rest.length > 0) kept.push(field, rest.join(';').trimStart());
  }
  return values.length === 0 ? { headers, values } : { headers: kept, values };
}

function cookieValue(pair: string, name: string): string | undefined {
  const start = pair.trimStart();
  return start.startsWith(`${name}=`) ? start.slice(name.length + 1).trimEnd() : undefined;
}
