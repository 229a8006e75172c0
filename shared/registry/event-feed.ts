/**
 * Tells listeners of changes, each listener every event, in order.
 *
 * A listener may change the registry itself. What it causes waits in a queue until every listener has seen the event at
 * hand; told at once, a later listener would see the two in the wrong order.
 */
export class EventFeed<E> {
  readonly #listeners = new Set<{ readonly call: (event: E) => void }>();
  readonly #queue: E[] = [];
  #draining = false;

  /** Returns a function that stops the listener; after it no event reaches it any more. */
  subscribe(listener: (event: E) => void): () => void {
    // Wrapped, so that one function subscribed twice is two listeners, each with its own end.
    const entry = { call: listener };
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  publish(event: E): void {
    if (this.#listeners.size === 0) return;
    this.#queue.push(event);
    if (this.#draining) return;
    this.#draining = true;
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      // A copy: who subscribes inside a listener hears of later changes only. Who was stopped inside one hears nothing more.
      for (const entry of [...this.#listeners]) {
        if (this.#listeners.has(entry)) notify(entry.call, next);
      }
    }
    this.#draining = false;
  }

  clear(): void {
    this.#listeners.clear();
  }
}

/** The change is made already, so a fault in a listener may neither undo it nor hide it from the other listeners. */
function notify<E>(call: (event: E) => void, event: E): void {
  try {
    call(event);
  } catch (error) {
    process.emitWarning(error instanceof Error ? error : String(error));
  }
}
