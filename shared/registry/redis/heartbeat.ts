import { CulvertError } from '../../errors/codes.ts';
import type { Logger } from '../../observability/logger.ts';
import { type Link, unavailable } from '../../redis/connection.ts';
import { EVENTS } from './keys.ts';
import type { Membership, Renewal } from './membership.ts';
import type { Sync } from './sync.ts';

export interface HeartbeatOptions {
  readonly link: Link;
  readonly membership: Membership;
  readonly sync: Sync;
  /** Milliseconds. */
  readonly lease: number;
  /** Milliseconds that one command may take. */
  readonly timeout: number;
  readonly sessions: () => number;
  /** @param isFirst of this process */
  readonly onRenewed: (renewal: Renewal, isFirst: boolean) => void;
  readonly log: Logger;
}

/** Renews the lease, checks that no event was missed, and knows whether Redis answers. */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #failing: CulvertError | undefined = new CulvertError('registry_unavailable', 'the registry is not connected yet');
  #renewedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #renewing: Promise<void> | undefined;
  #again = false;
  #closed = false;
  /** Events may have been lost: versions that are behind are gaps. */
  #missedEvents = true;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    const { commands, events } = options.link;
    commands.on('ready', () => this.soon());
    commands.on('close', () => {
      this.#failing ??= new CulvertError('registry_unavailable', 'the connection to redis is lost');
    });
    events.on('ready', () => void this.#subscribe());
    // On a Cluster the connection for events moves without a `ready` when its node goes.
    events.on('+subscriber', () => void this.#subscribe());
    this.#schedule();
  }

  /** Undefined while Redis answers and the lease stands. */
  problem(): CulvertError | undefined {
    if (this.#failing !== undefined) return this.#failing;
    if (performance.now() - this.#renewedAt <= this.#options.lease) return undefined;
    return new CulvertError('registry_unavailable', 'this node could not renew its lease');
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#renewing?.catch(() => {});
  }

  async #subscribe(): Promise<void> {
    try {
      await this.#options.link.events.subscribe(EVENTS);
      this.#missedEvents = true;
      this.soon();
    } catch (error) {
      this.#options.log.debug({ err: error }, 'could not subscribe to the events of the registry');
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    const opensIn = this.#options.sync.opensIn;
    const usual = opensIn > 0 ? Math.min(this.#options.membership.pause, opensIn + 5) : this.#options.membership.pause;
    const pause = this.#failing === undefined ? usual : Math.min(this.#options.lease / 3, this.#options.timeout);
    this.#timer = setTimeout(() => void this.renewNow().catch(() => {}), pause);
  }

  /** Something changed that the next renewal tells. Spread out, for all nodes hear of it at once. */
  soon(): void {
    if (this.#closed) return;
    if (this.#renewing !== undefined) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.renewNow().catch(() => {}), Math.random() * 10);
  }

  /** @throws what Redis threw */
  async renewNow(): Promise<void> {
    // One that began before the caller's change does not carry it.
    if (this.#renewing !== undefined) await this.#renewing.catch(() => {});
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
      if (this.#again) {
        this.#again = false;
        this.soon();
      } else {
        this.#schedule();
      }
    });
    return this.#renewing;
  }

  async #renew(): Promise<void> {
    const started = performance.now();
    const isFirst = this.#options.membership.incarnation === 0;
    try {
      const renewal = await this.#options.membership.renew(this.#options.sessions());
      const certain = this.#missedEvents;
      await Promise.all([this.#options.sync.probe(certain), this.#checkEvents()]);
      if (certain) this.#missedEvents = false;
      this.#renewedAt = started;
      this.#failing = undefined;
      this.#options.onRenewed(renewal, isFirst);
    } catch (error) {
      this.#failing = unavailable(error);
      if (!this.#closed) this.#options.log.debug({ err: error }, 'the lease could not be renewed');
      throw error;
    }
  }

  /** A connection that is dead without having been closed brings no events and no error. */
  async #checkEvents(): Promise<void> {
    const { events, commands } = this.#options.link;
    if (events === commands) return;
    if (events.status !== 'ready') {
      this.#missedEvents = true;
      return;
    }
    const answered = await Promise.race([
      events.ping().then(
        () => true,
        () => true,
      ),
      this.#expiry(),
    ]);
    if (!answered && !this.#closed) events.disconnect(true);
  }

  #expiry(): Promise<false> {
    return new Promise((resolve) => setTimeout(resolve, this.#options.timeout, false).unref());
  }
}
