import type { Duplex } from 'node:stream';

/** What a connection is at the moment: still unknown, HTTP/1, HTTP/2, or refused. */
export interface Stage {
  /** Called about once a second: gives up what makes no progress. `now`: `Date.now()`. */
  sweep(now: number): void;
  /** The socket is closed. */
  closed(): void;
  destroy(): void;
  /** Ends as soon as what is in flight is done. */
  closeGracefully(): void;
}

/**
 * Every open connection of a listener. One timer looks after all of them, since a timer for each request or connection
 * costs more than the few that ever stall.
 */
export class Connections {
  readonly #stages = new Map<Duplex, Stage>();
  #timer: NodeJS.Timeout | undefined;
  #emptied: (() => void) | undefined;

  get size(): number {
    return this.#stages.size;
  }

  /** @param interval milliseconds between two looks at every connection */
  startSweeping(interval: number): void {
    this.#timer = setInterval(() => this.#sweep(), interval);
    this.#timer.unref();
  }

  stopSweeping(): void {
    clearInterval(this.#timer);
  }

  add(socket: Duplex, stage: Stage): void {
    this.#stages.set(socket, stage);
    socket.once('close', () => this.remove(socket));
  }

  /** The connection turned out to be something more definite. */
  replace(socket: Duplex, stage: Stage): void {
    if (this.#stages.has(socket)) this.#stages.set(socket, stage);
  }

  /** Forgets a socket that another one wraps from now on, and returns its stage. */
  take(socket: Duplex): Stage | undefined {
    const stage = this.#stages.get(socket);
    this.#stages.delete(socket);
    return stage;
  }

  remove(socket: Duplex): void {
    const stage = this.#stages.get(socket);
    if (stage === undefined) return;
    this.#stages.delete(socket);
    stage.closed();
    if (this.#stages.size === 0) this.#emptied?.();
  }

  closeGracefully(): void {
    for (const stage of this.#stages.values()) stage.closeGracefully();
  }

  destroyAll(): void {
    for (const stage of this.#stages.values()) stage.destroy();
  }

  /** Resolves true when no connection is left, false when `deadline` milliseconds pass before. */
  async emptied(deadline: number): Promise<boolean> {
    if (this.#stages.size === 0) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), deadline);
    this.#emptied = () => resolve(true);
    const empty = await promise;
    clearTimeout(timer);
    return empty;
  }

  #sweep(): void {
    const now = Date.now();
    for (const stage of this.#stages.values()) stage.sweep(now);
  }
}
