import { type IncomingMessage, ServerResponse, validateHeaderName, validateHeaderValue } from 'node:http';
import type { Socket } from 'node:net';
import type { FlatHeaders } from '../../../shared/protocol/heads.ts';
import type { VisitorReceiver } from './exchange.ts';
import { FieldKind, fieldKind } from './field-kind.ts';
import type { Http1Connection } from './http1-connection.ts';
import { Http1Exchange } from './http1-exchange.ts';
import { responseHeaders } from './response-fields.ts';
import type { ReadRequest } from './validate.ts';

/** A request to switch protocols. Until `switchProtocols` it is answered like any other, and then the connection ends. */
export class UpgradeExchange extends Http1Exchange {
  readonly #socket: Socket;
  readonly #tokens: string;
  #switched = false;
  #ended = false;
  #visitorEnded = false;

  /** @param head bytes that came after the request: the first of the new protocol */
  constructor(request: ReadRequest, connection: Http1Connection, req: IncomingMessage, head: Buffer, tokens: string) {
    const res = new ServerResponse(req);
    super(request, connection, req, res, tokens);
    const { socket } = connection;
    this.#socket = socket;
    this.#tokens = tokens;
    res.shouldKeepAlive = false;
    res.assignSocket(socket);
    if (head.length > 0) socket.unshift(head);
    // node:http took its listeners off with its parser.
    socket.on('error', () => socket.destroy());
    socket.on('drain', () => this.#drained(res));
  }

  override pause(): void {
    if (this.#switched) this.#socket.pause();
  }

  override resume(): void {
    if (this.#switched) this.#socket.resume();
  }

  override switchProtocols(headers: FlatHeaders, first: Buffer | undefined): boolean {
    if (this.over || this.sent) return false;
    const head = this.#switchingHead(headers);
    if (head === undefined || this.receiver === undefined) {
      this.fail('bad_response');
      return false;
    }
    this.sent = true;
    this.#switched = true;
    this.#socket.cork();
    this.#socket.write(head, 'latin1');
    if (first !== undefined && first.length > 0) this.#socket.write(first);
    this.#socket.uncork();
    this.#deliver(this.receiver);
    return true;
  }

  override write(chunk: Buffer): boolean {
    if (!this.#switched) return super.write(chunk);
    return this.over || this.#ended || this.#socket.write(chunk);
  }

  override trailers(headers: FlatHeaders): void {
    if (this.#switched) this.end();
    else super.trailers(headers);
  }

  override end(): void {
    if (!this.#switched) {
      super.end();
      return;
    }
    if (this.over || this.#ended) return;
    this.#ended = true;
    this.#socket.end();
    this.#closeWhenBothEnded();
  }

  override get isBlocked(): boolean {
    if (!this.#switched) return super.isBlocked;
    return this.over || this.#ended ? this.#socket.writableLength > 0 : this.#socket.writableNeedDrain;
  }

  override whenSent(callback: () => void): void {
    if (!this.#switched) super.whenSent(callback);
    else if (this.#socket.closed) callback();
    else this.#socket.once('close', callback);
  }

  override abort(): void {
    if (!this.#switched) {
      super.abort();
      return;
    }
    if (this.over) return;
    this.over = true;
    this.connection.finished(this);
    // After 101 there is no framing: only a reset tells the visitor that this is no orderly end.
    this.connection.reset();
  }

  override connectionClosed(): void {
    const finished = this.#switched && this.#ended && this.#visitorEnded;
    if (finished && !this.over) {
      this.over = true;
      this.receiver?.onFinish?.();
      return;
    }
    super.connectionClosed();
  }

  protected override afterEnd(res: ServerResponse): void {
    const close = (): void => this.#socket.destroySoon();
    if (res.writableFinished) close();
    else res.once('finish', close);
  }

  #deliver(receiver: VisitorReceiver): void {
    this.#socket.on('data', (chunk: Buffer) => {
      if (!this.over) receiver.onData(chunk);
    });
    this.#socket.on('end', () => {
      if (this.over) return;
      this.#visitorEnded = true;
      receiver.onEnd(undefined);
      this.#closeWhenBothEnded();
    });
    this.#socket.resume();
  }

  #closeWhenBothEnded(): void {
    if (this.#ended && this.#visitorEnded) this.#socket.destroySoon();
  }

  /** node:http's own response object writes no 'drain' once its parser is gone. */
  #drained(res: ServerResponse): void {
    if (this.over) return;
    if (this.#switched) this.receiver?.onDrain();
    else res.emit('drain');
  }

  #switchingHead(headers: FlatHeaders): string | undefined {
    const fields = responseHeaders(headers);
    let head = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocolOf(headers) ?? this.#tokens}\r\n`;
    try {
      for (let i = 0; i + 1 < fields.headers.length; i += 2) {
        const name = fields.headers[i] ?? '';
        const value = fields.headers[i + 1] ?? '';
        validateHeaderName(name);
        validateHeaderValue(name, value);
        // RFC 9110 section 8.6: no Content-Length in a 1xx.
        if (fieldKind(name) !== FieldKind.contentLength) head += `${name}: ${value}\r\n`;
      }
    } catch {
      return undefined;
    }
    return `${head}\r\n`;
  }
}

/** The protocol that the service chose among those offered. */
function protocolOf(headers: FlatHeaders): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const value = headers[i + 1] ?? '';
    if (fieldKind(headers[i] ?? '') === FieldKind.upgrade && /^[\w.!#$%&'*+^`|~/, -]+$/.test(value)) return value;
  }
  return undefined;
}
