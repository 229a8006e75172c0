import { connect, type TLSSocket } from 'node:tls';
import type { Address } from '../../../shared/config/net-values.ts';
import { CulvertError } from '../../../shared/errors/codes.ts';
import { Backoff } from '../../../shared/net/backoff.ts';
import type { Logger } from '../../../shared/observability/logger.ts';
import type { RequestHead } from '../../../shared/protocol/heads.ts';
import type { Session } from '../../../shared/protocol/session.ts';
import type { Stream, StreamSink, Upstream } from '../../../shared/protocol/stream-types.ts';
import type { NodeId } from '../../../shared/registry/registry.ts';
import { type ClusterIdentity, certifiedNodeId } from '../../../shared/tls/cluster-identity.ts';
import type { CallLink } from '../calls/call-client.ts';
import { type LinkSessionOptions, linkSession } from './link-session.ts';

export interface RelayLinkOptions extends LinkSessionOptions {
  /** Asked at each dial, so that a renewed identity is used from then on. */
  readonly identity: () => ClusterIdentity;
  readonly log: Logger;
  /** Milliseconds for the connection, the handshakes and the peer's first byte together. Default 3,000. */
  readonly connectTimeout?: number;
  /** Longest wait before another attempt, milliseconds. Default 2,000. */
  readonly reconnectCap?: number;
  /** 0 ≤ x < 1. Default Math.random. */
  readonly random?: () => number;
  /** The link can be used from now on, or not any more. */
  readonly onChange: (nodeId: NodeId, up: boolean, reason: string) => void;
}

const CONNECT_TIMEOUT = 3000;
/** The longest first wait, milliseconds. */
const FIRST_WAIT = 100;
const RECONNECT_CAP = 2000;
/** Streams on a connection that was replaced may go on for this time, milliseconds. */
const REPLACED_DEADLINE = 3_600_000;
/** A connection that ended sooner than this was no success: its peer is not hurried to take the next. Milliseconds. */
const STABLE_AFTER = 5000;

/** The link to one peer node: a connection that is kept up, over which this node opens streams to the peer's agents. */
export class RelayLink implements Upstream, CallLink {
  readonly nodeId: NodeId;
  readonly address: Address;
  readonly #options: RelayLinkOptions;
  /** Carries new streams. */
  #current: Dial | undefined;
  /** All connections: the one that is being made, the current one, and those that were replaced and run out. */
  readonly #dials = new Set<Dial>();
  #retry: NodeJS.Timeout | undefined;
  readonly #backoff: Backoff;
  #closing = false;
  #whenClosed: (() => void)[] = [];

  /** Dials at once. */
  constructor(nodeId: NodeId, address: Address, options: RelayLinkOptions) {
    this.nodeId = nodeId;
    this.address = address;
    this.#options = options;
    this.#backoff = new Backoff(FIRST_WAIT, options.reconnectCap ?? RECONNECT_CAP, options.random);
    this.#dial();
  }

  get available(): boolean {
    return this.#current?.isUsable === true;
  }

  get load(): number {
    return this.#current?.session.load ?? 0;
  }

  /** Milliseconds, from the last heartbeat; undefined while the link is down. */
  get roundTrip(): number | undefined {
    return this.#current?.session.roundTrip;
  }

  open(head: RequestHead, body: Buffer | undefined, end: boolean, sink: StreamSink): Stream {
    return this.#usable.open(head, body, end, sink);
  }

  openCall(head: RequestHead, body: Buffer, sink: StreamSink): Stream {
    return this.#usable.openCall(head, body, true, sink);
  }

  get #usable(): Session {
    const dial = this.#current;
    // A socket that was destroyed takes nothing any more, though its session may not have heard of it yet.
    if (dial === undefined || !dial.socket.writable) {
      throw new CulvertError('not_processed', `the relay link to ${this.nodeId} is down`);
    }
    return dial.session;
  }

  /**
   * Dials no more and takes no new streams; resolves when those that are open are done.
   * @param deadline milliseconds; then what is left is cut off
   */
  async close(deadline: number): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#retry);
    if (this.#dials.size === 0) return;
    const closed = new Promise<void>((resolve) => this.#whenClosed.push(resolve));
    const giveUp = setTimeout(() => this.#destroyAll(), deadline);
    for (const dial of [...this.#dials]) dial.leave('the node takes its link away', deadline);
    await closed;
    clearTimeout(giveUp);
  }

  #destroyAll(): void {
    for (const dial of [...this.#dials]) dial.destroy('the deadline of the link has passed');
  }

  #dial(): void {
    const dial = new Dial(this.nodeId, this.address, this.#options, {
      onReady: (ready) => this.#onReady(ready),
      onNearlyUsedUp: () => this.#dial(),
      onClosed: (closed, reason) => this.#onClosed(closed, reason),
    });
    this.#dials.add(dial);
  }

  #onReady(dial: Dial): void {
    const previous = this.#current;
    this.#current = dial;
    // Make-before-break: only now do new streams leave the connection whose ids run out.
    if (previous !== undefined) previous.leave('the link is replaced', REPLACED_DEADLINE);
    else this.#options.onChange(this.nodeId, true, 'connected');
  }

  #onClosed(dial: Dial, reason: string): void {
    this.#dials.delete(dial);
    if (dial.lifetime >= STABLE_AFTER) this.#backoff.reset();
    if (this.#current === dial) {
      this.#current = undefined;
      this.#options.onChange(this.nodeId, false, reason);
    }
    if (this.#closing) {
      if (this.#dials.size === 0) for (const done of this.#whenClosed.splice(0)) done();
    } else if (dial.carriesNew && !this.#isDialling) {
      this.#redialLater(reason);
    }
  }

  get #isDialling(): boolean {
    for (const dial of this.#dials) if (dial !== this.#current && dial.carriesNew) return true;
    return false;
  }

  #redialLater(reason: string): void {
    const wait = this.#backoff.next();
    this.#options.log.debug({ peer: this.nodeId, reason, wait }, 'relay link will be dialled again');
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#dial(), wait);
    this.#retry.unref();
  }
}

interface DialEvents {
  /** The peer has proved itself and has accepted this node. */
  onReady(dial: Dial): void;
  onNearlyUsedUp(): void;
  /** Once, also when the connection never came about. */
  onClosed(dial: Dial, reason: string): void;
}

/** One connection to a peer, from dialling to its end. */
class Dial {
  readonly socket: TLSSocket;
  readonly session: Session;
  readonly #events: DialEvents;
  readonly #timer: NodeJS.Timeout;
  /** When the peer had proved itself, monotonic milliseconds. */
  #readyAt = Number.POSITIVE_INFINITY;
  #leaving = false;

  constructor(nodeId: NodeId, address: Address, options: RelayLinkOptions, events: DialEvents) {
    this.#events = events;
    const { ca, cert, key } = options.identity();
    this.socket = connect({
      ...{ ca, cert, key, host: address.host, port: address.port, servername: '', minVersion: 'TLSv1.3' },
      // Whose address this is does not matter, but which node answers does. Runs after the chain was verified.
      checkServerIdentity: (_host, certificate) => {
        const id = certifiedNodeId(certificate.subjectaltname);
        if (id === nodeId) return undefined;
        return new Error(`node ${id ?? 'without an id'} answers where ${nodeId} should be`);
      },
    });
    this.socket.setNoDelay(true);
    // Takes the connection over from the start: a session ends by itself when the handshake fails.
    this.session = linkSession(this.socket, 'opener', options, {
      onControl: () => {
        throw new CulvertError('invalid_frame', 'control messages are not for relay links');
      },
      onStream: () => {
        throw new CulvertError('invalid_frame', 'only the dialling node opens streams');
      },
      onGoAway: (message) => options.log.debug({ peer: nodeId, reason: message.reason }, 'relay link goes away'),
      onNearlyUsedUp: () => events.onNearlyUsedUp(),
      onClosed: (_code, message) => {
        clearTimeout(this.#timer);
        // A handshake that failed must not linger until the session's grace is over.
        if (!this.#isReady) this.socket.destroy();
        events.onClosed(this, message);
      },
    });
    this.#timer = setTimeout(
      () => this.destroy('the peer did not answer in time'),
      options.connectTimeout ?? CONNECT_TIMEOUT,
    );
    // The server verifies this node's certificate after the client has finished its handshake (RFC 8446 section 4.4.4):
    // only its first byte, a heartbeat, says that the link is there.
    this.socket.once('data', () => this.#onFirstByte());
  }

  get isUsable(): boolean {
    return this.session.available && this.socket.writable;
  }

  /** Milliseconds since the link was there; negative before. */
  get lifetime(): number {
    return performance.now() - this.#readyAt;
  }

  get #isReady(): boolean {
    return this.#readyAt !== Number.POSITIVE_INFINITY;
  }

  /** False once another connection carries, or nothing should carry, new streams. */
  get carriesNew(): boolean {
    return !this.#leaving;
  }

  leave(reason: string, deadline: number): void {
    this.#leaving = true;
    if (this.#isReady) this.session.goAway(reason, deadline);
    else this.destroy(reason);
  }

  destroy(reason: string): void {
    this.session.close(undefined, reason);
    this.socket.destroy();
  }

  #onFirstByte(): void {
    if (this.session.state !== 'handshake') return;
    clearTimeout(this.#timer);
    this.#readyAt = performance.now();
    this.session.authenticated();
    this.#events.onReady(this);
  }
}
