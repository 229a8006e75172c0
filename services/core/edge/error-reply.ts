import { STATUS_CODES } from 'node:http';
import { ERROR_CODES, type ErrorCode } from '../../../shared/errors/codes.ts';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { renderErrorPage } from './error-page.ts';

export interface ErrorReply {
  readonly status: number;
  readonly headers: FlatHeaders;
  readonly body: Buffer;
}

type Format = 'json' | 'html' | 'text';

const MEDIA_TYPE: Record<Format, string> = {
  json: 'application/json; charset=utf-8',
  html: 'text/html; charset=utf-8',
  text: 'text/plain; charset=utf-8',
};

/** Seconds until another try makes sense: buckets of limits refill within one, places and nodes take a little longer. */
const RETRY_AFTER: Partial<Record<ErrorCode, number>> = { rate_limit_exceeded: 1 };
const RETRY_AFTER_ELSE = 3;

/** An Accept field longer than this is not worth reading for an error reply. */
const MAX_ACCEPT = 1024;

/**
 * The reply to a visitor for an error of the table, in the format that `accept` prefers.
 * @param detail what went wrong in this case, for people; the code's meaning when absent
 */
export function renderError(
  code: ErrorCode,
  requestId: string,
  accept: string | undefined,
  detail?: string,
  status: number = ERROR_CODES[code].status,
): ErrorReply {
  const message = detail === undefined ? ERROR_CODES[code].meaning : sentence(detail);
  const format = preferredFormat(accept);
  const body = Buffer.from(renderBody(format, { status, code, message, requestId }));
  const headers = [
    'Content-Type',
    MEDIA_TYPE[format],
    'Content-Length',
    String(body.length),
    'Cache-Control',
    'no-store',
    'Vary',
    'Accept',
    'X-Content-Type-Options',
    'nosniff',
    'X-Culvert-Error',
    code,
    'X-Request-Id',
    requestId,
  ];
  if (format === 'html') headers.push('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'");
  if (status === 429 || status === 503) headers.push('Retry-After', String(RETRY_AFTER[code] ?? RETRY_AFTER_ELSE));
  return { status, headers, body };
}

/** A whole HTTP/1.1 reply for a connection that has no usable request; it ends the connection. */
export function renderRawError(code: ErrorCode, requestId: string, status: number = ERROR_CODES[code].status): Buffer {
  const { headers, body } = renderError(code, requestId, undefined, undefined, status);
  let head = `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}\r\nConnection: close\r\nDate: ${new Date().toUTCString()}\r\n`;
  for (let i = 0; i + 1 < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`;
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), body]);
}

function renderBody(
  format: Format,
  page: { status: number; code: string; message: string; requestId: string },
): string {
  if (format === 'html') return renderErrorPage(page);
  if (format === 'text') return `${page.status} ${page.code}: ${page.message}\nrequest id: ${page.requestId}\n`;
  return `${JSON.stringify({ error: { code: page.code, message: page.message, request_id: page.requestId } })}\n`;
}

function sentence(detail: string): string {
  const text = detail.charAt(0).toUpperCase() + detail.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/**
 * JSON and HTML are given to those who ask for them by name; a bare wildcard (curl) gets plain text. The higher q-value
 * wins (RFC 9110 section 12.5.1), at a tie JSON before HTML before text.
 */
export function preferredFormat(accept: string | undefined): Format {
  if (accept === undefined || accept.length > MAX_ACCEPT) return 'text';
  let json = 0;
  let html = 0;
  let text = 0;
  for (const part of accept.toLowerCase().split(',')) {
    const [range = '', ...parameters] = part.split(';');
    const type = range.trim();
    const q = quality(parameters);
    if (type === 'application/json' || (type.startsWith('application/') && type.endsWith('+json')))
      json = Math.max(json, q);
    else if (type === 'text/html' || type === 'application/xhtml+xml') html = Math.max(html, q);
    else if (type === 'text/plain' || type === 'text/*') text = Math.max(text, q);
  }
  if (json > 0 && json >= html && json >= text) return 'json';
  return html > 0 && html >= text ? 'html' : 'text';
}

function quality(parameters: string[]): number {
  for (const parameter of parameters) {
    const found = /^\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*$/.exec(parameter);
    if (found) return Math.min(1, Number(found[1]));
  }
  return 1;
}
