import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import { contentLength, IS_TEXT, IS_TOKEN, listTokens, without } from './fields.ts';

const CR = 0x0d;
const LF = 0x0a;
const SP = 0x20;
const HTAB = 0x09;
const COLON = 0x3a;
const ZERO = 0x30;

const NOT_NOMINABLE = new Set(['close', 'keep-alive', 'upgrade', 'content-length']);

/**
 * A response head as it is needed to frame the body and to pass the head on. The fields of this hop (RFC 9110 section
 * 7.6.1: Connection and what it names, Keep-Alive, Transfer-Encoding, Proxy-Connection, TE) are taken out while they are
 * read, so that the head is walked once. Proxy-Authenticate stays: 7.6.1 does not name it and the reply to a gateway's
 * visitor is the service's own. Upgrade stays with 101 and 426, whose meaning it carries.
 */
export class ResponseHeadReader {
  status = 0;
  reason = '';
  headers: FlatHeaders = [];
  /** Content-Length, -1 when there is none. */
  length = -1;
  chunked = false;
  /** The connection may carry another request when the message is over. */
  keepAlive = false;
  /** Seconds of `Keep-Alive: timeout=N`, -1 when the service does not say. */
  keepAliveSeconds = -1;
  /** Why the last `read` returned false. */
  error = '';

  #hasEncoding = false;
  #connection = '';
  #upgrade = -1;
  #keepAliveText = '';
  #keepAliveParsed = -1;

  /** `text`: a whole head, its empty line included. False when it is not valid HTTP/1.x; `error` says why. */
  read(text: string): boolean {
    this.headers = [];
    this.length = -1;
    this.chunked = false;
    this.keepAliveSeconds = -1;
    this.#hasEncoding = false;
    this.#connection = '';
    this.#upgrade = -1;
    const minor = text.charCodeAt(7) - ZERO;
    if (!text.startsWith('HTTP/1.') || (minor !== 0 && minor !== 1) || text.charCodeAt(8) !== SP) {
      return this.#fail('the status line does not start with HTTP/1.0 or HTTP/1.1');
    }
    const hundreds = text.charCodeAt(9) - ZERO;
    const tens = text.charCodeAt(10) - ZERO;
    const ones = text.charCodeAt(11) - ZERO;
    if (!(hundreds >= 1 && hundreds <= 9 && tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9)) {
      return this.#fail('the status is not three digits');
    }
    this.status = hundreds * 100 + tens * 10 + ones;
    // The space before an absent reason is required (RFC 9112 section 4) and yet often left out.
    let at = 12;
    if (text.charCodeAt(at) === SP) at++;
    else if (text.charCodeAt(at) !== CR) return this.#fail('the status is not three digits');
    const reasonStart = at;
    while (IS_TEXT[text.charCodeAt(at)] === 1) at++;
    if (text.charCodeAt(at) !== CR || text.charCodeAt(at + 1) !== LF) {
      return this.#fail('the status line holds a control character');
    }
    this.reason = text.slice(reasonStart, at);
    if (!this.#fields(text, at + 2, false)) return false;
    return this.#conclude(minor);
  }

  /** `text`: a whole trailer section, its empty line included. The fields are in `headers`. */
  readTrailers(text: string): boolean {
    this.headers = [];
    return this.#fields(text, 0, true);
  }

  #fields(text: string, from: number, trailers: boolean): boolean {
    const end = text.length - 2;
    let at = from;
    while (at < end) {
      const nameStart = at;
      while (IS_TOKEN[text.charCodeAt(at)] === 1) at++;
      // Also refuses obs-fold (RFC 9112 section 5.2) and white space before the colon (5.1).
      if (at === nameStart || text.charCodeAt(at) !== COLON) return this.#fail('a header name is not a token');
      const name = text.slice(nameStart, at++);
      let char = text.charCodeAt(at);
      while (char === SP || char === HTAB) char = text.charCodeAt(++at);
      const valueStart = at;
      while (IS_TEXT[char] === 1) char = text.charCodeAt(++at);
      if (char !== CR || text.charCodeAt(at + 1) !== LF) {
        return this.#fail('a header value holds a control character');
      }
      let valueEnd = at;
      for (; valueEnd > valueStart; valueEnd--) {
        const last = text.charCodeAt(valueEnd - 1);
        if (last !== SP && last !== HTAB) break;
      }
      const value = text.slice(valueStart, valueEnd);
      at += 2;
      if (trailers || !this.#ofThisHop(name, value)) this.headers.push(name, value);
      if (this.error !== '') return false;
    }
    return true;
  }

  /** True when the field is not to be passed on. The length comes first: it spares the lower-casing of most names. */
  #ofThisHop(name: string, value: string): boolean {
    switch (name.length) {
      case 2:
        return name.toLowerCase() === 'te';
      case 7:
        if (name.toLowerCase() === 'upgrade') this.#upgrade = this.headers.length;
        return false;
      case 10: {
        const lower = name.toLowerCase();
        if (lower === 'connection') {
          this.#connection = this.#connection === '' ? value : `${this.#connection},${value}`;
          return true;
        }
        if (lower !== 'keep-alive') return false;
        this.#readKeepAlive(value);
        return true;
      }
      case 14: {
        if (name.toLowerCase() !== 'content-length') return false;
        const length = contentLength(value);
        if (length < 0 || (this.length >= 0 && this.length !== length)) {
          this.#fail('Content-Length is not one number');
          return true;
        }
        // Only the first of equal ones is passed on, as one number (RFC 9110 section 8.6).
        if (this.length < 0) this.headers.push(name, String(length));
        this.length = length;
        return true;
      }
      case 16:
        return name.toLowerCase() === 'proxy-connection';
      case 17:
        if (name.toLowerCase() !== 'transfer-encoding') return false;
        // No TE was sent, so no other coding may be applied (RFC 9112 section 7.4); applied twice is an error too (6.1).
        this.chunked = !this.#hasEncoding && value.toLowerCase() === 'chunked';
        this.#hasEncoding = true;
        return true;
      default:
        return false;
    }
  }

  #readKeepAlive(value: string): void {
    // Services send the same text each time.
    if (value !== this.#keepAliveText) {
      const seconds = /(?:^|[,;\s])timeout\s*=\s*"?(\d{1,9})/i.exec(value)?.[1];
      this.#keepAliveText = value;
      this.#keepAliveParsed = seconds === undefined ? -1 : Number(seconds);
    }
    this.keepAliveSeconds = this.#keepAliveParsed;
  }

  #conclude(minor: number): boolean {
    const { status } = this;
    const bodiless = status < 200 || status === 204;
    if (this.#hasEncoding && !bodiless) {
      if (this.length >= 0) return this.#fail('both Transfer-Encoding and Content-Length (RFC 9112 section 6.3)');
      if (minor === 0) return this.#fail('Transfer-Encoding in an HTTP/1.0 response (RFC 9112 section 6.1)');
      if (!this.chunked) return this.#fail('a transfer coding other than chunked');
    }
    this.keepAlive = minor === 1;
    const connection = this.#connection;
    if (connection === 'keep-alive') this.keepAlive = true;
    else if (connection === 'close') this.keepAlive = false;
    else if (connection !== '') this.#applyConnection(connection, minor);
    if (this.#upgrade >= 0 && status !== 101 && status !== 426) this.headers = without(this.headers, UPGRADE);
    // RFC 9110 section 8.6: no Content-Length with 1xx and 204.
    if (bodiless && this.length >= 0) this.headers = without(this.headers, CONTENT_LENGTH);
    return true;
  }

  #applyConnection(value: string, minor: number): void {
    const tokens = listTokens(value);
    const close = tokens.includes('close');
    this.keepAlive = !close && (minor === 1 || tokens.includes('keep-alive'));
    const named = new Set(tokens);
    for (const name of NOT_NOMINABLE) named.delete(name);
    if (named.size > 0) this.headers = without(this.headers, named);
  }

  #fail(why: string): false {
    this.error = why;
    return false;
  }
}

const UPGRADE = new Set(['upgrade']);
const CONTENT_LENGTH = new Set(['content-length']);
