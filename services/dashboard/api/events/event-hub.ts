import { randomUUID } from 'node:crypto';
import type { Writable } from 'node:stream';
import type { Principal } from '../../../../shared/control/principal.ts';
import { CulvertError } from '../../../../shared/errors/codes.ts';
import type { NodeRecord, RegistryEvent, SessionRecord } from '../../../../shared/registry/registry.ts';
import type { ApiContext } from '../context.ts';
import { overviewOf } from '../overview.ts';
import { tunnelView } from '../routes/tunnels.ts';
import { EventClient, eventText } from './event-client.ts';

/** Readers at a time. */
const MAX_CLIENTS = 100;
/** Changes are told together, milliseconds: what changes twice in between is told once. */
const FLUSH_INTERVAL = 250;
/** More changes than this at once are told as one `changed`: the reader asks for the lists again. */
const MAX_CHANGES = 200;
const FIGURES_INTERVAL = 2000;
const HEARTBEAT_INTERVAL = 15_000;
/** Events that are kept for readers that come back. */
const MAX_KEPT = 500;
/** Without readers nothing is gathered any more after this time, milliseconds. */
const LINGER = 30_000;

interface Kept {
  readonly number: number;
  readonly accountId: string | undefined;
  /** For everybody, whatever the account. */
  readonly isForAll: boolean;
  readonly text: string;
}

/** Tells readers what changes in the cluster. Costs nothing while nobody reads. */
export class EventHub {
  readonly #context: ApiContext;
  readonly #clients = new Set<EventClient>();
  readonly #sessions = new Map<string, { readonly session: SessionRecord; readonly isOpen: boolean }>();
  /** By name, the accounts that have or had it. */
  readonly #tunnels = new Map<string, Set<string>>();
  readonly #nodes = new Map<string, NodeRecord | undefined>();
  #isOverrun = false;
  #kept: Kept[] = [];
  /** Numbers of another generation say nothing here. */
  #generation = '';
  #number = 0;
  #timers: NodeJS.Timeout[] = [];
  #linger: NodeJS.Timeout | undefined;
  #unsubscribe: (() => void) | undefined;
  #isClosed = false;

  constructor(context: ApiContext) {
    this.#context = context;
  }

  /** @throws CulvertError `overloaded` when there are too many readers, `node_draining` when the node is about to end */
  assertRoom(): void {
    if (this.#isClosed) throw new CulvertError('node_draining', 'the node is about to end');
    if (this.#clients.size >= MAX_CLIENTS) throw new CulvertError('overloaded', `${MAX_CLIENTS} readers are connected`);
  }

  /** @param lastId of the last event that the reader has seen, if it comes back */
  add(principal: Principal, out: Writable, lastId: string | undefined): void {
    this.assertRoom();
    clearTimeout(this.#linger);
    if (this.#unsubscribe === undefined) this.#start();
    const client = new EventClient(principal, out, () => this.#remove(client));
    this.#clients.add(client);
    const missed = this.#since(lastId);
    const node = this.#context.calls.nodeId;
    client.send(eventText('hello', { at: Date.now(), node, resumed: missed !== undefined }));
    if (missed === undefined) {
      void this.#sendSnapshot(client);
      return;
    }
    for (const { accountId, isForAll, text } of missed) if (isForAll || client.sees(accountId)) client.send(text);
  }

  /** Tells the readers that the node goes away. */
  close(): void {
    this.#isClosed = true;
    for (const client of [...this.#clients]) client.drop('node_draining', 'the node is about to end');
    this.#stop();
  }

  #start(): void {
    this.#generation = randomUUID();
    this.#unsubscribe = this.#context.registry.subscribe((event) => this.#note(event));
    this.#timers = [
      setInterval(() => this.#flush(), FLUSH_INTERVAL),
      setInterval(() => void this.#tellFigures(), FIGURES_INTERVAL),
      setInterval(() => this.#toAll(': still here\n\n'), HEARTBEAT_INTERVAL),
    ];
    for (const timer of this.#timers) timer.unref();
  }

  #stop(): void {
    clearTimeout(this.#linger);
    for (const timer of this.#timers) clearInterval(timer);
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.#kept = [];
    this.#forgetChanges();
  }

  #remove(client: EventClient): void {
    this.#clients.delete(client);
    if (this.#clients.size > 0 || this.#isClosed) return;
    this.#linger = setTimeout(() => this.#stop(), LINGER);
    this.#linger.unref();
  }

  #note(event: RegistryEvent): void {
    if (event.type === 'node') this.#nodes.set(event.nodeId, event.node);
    // Nothing piles up while thousands of agents come at once.
    if (this.#isOverrun) return;
    if (event.type === 'session') {
      this.#sessions.set(event.session.id, { session: event.session, isOpen: event.isOpen });
    } else if (event.type === 'route') {
      const accounts = this.#tunnels.get(event.name) ?? new Set();
      for (const route of [event.before, event.route]) if (route !== undefined) accounts.add(route.accountId);
      this.#tunnels.set(event.name, accounts);
    }
    this.#isOverrun = this.#sessions.size + this.#tunnels.size > MAX_CHANGES;
  }

  #flush(): void {
    const at = Date.now();
    for (const [nodeId, node] of this.#nodes) {
      const { state = 'gone', version = '', sessions = 0 } = node ?? {};
      this.#publish('node', { at, nodeId, state, version, sessions }, undefined);
    }
    if (this.#isOverrun) {
      this.#publish('changed', { at, lists: ['agents', 'tunnels'] }, undefined, true);
    } else {
      for (const { session, isOpen } of this.#sessions.values()) {
        const { agentId, accountId, id, epoch, nodeId } = session;
        this.#publish('agent', { at, agentId, accountId, session: { id, epoch, nodeId }, isOpen }, accountId);
      }
      for (const [name, accounts] of this.#tunnels) this.#tellTunnel(at, name, accounts);
    }
    this.#forgetChanges();
  }

  #forgetChanges(): void {
    this.#isOverrun = false;
    for (const changes of [this.#sessions, this.#tunnels, this.#nodes]) changes.clear();
  }

  /** A name that went from one account to another is gone for the one and new for the other. */
  #tellTunnel(at: number, name: string, accounts: ReadonlySet<string>): void {
    const { registry, publicUrl } = this.#context;
    const route = registry.lookup(name);
    for (const accountId of accounts) {
      const isTheirs = route?.accountId === accountId && route.endpoints.length > 0;
      const tunnel = isTheirs ? tunnelView(route, publicUrl) : null;
      this.#publish('tunnel', { at, name, accountId, tunnel }, accountId);
    }
  }

  #publish(type: string, data: object, accountId: string | undefined, isForAll = false): void {
    this.#number += 1;
    const text = eventText(type, data, `${this.#generation}.${this.#number}`);
    this.#kept.push({ number: this.#number, accountId, isForAll, text });
    if (this.#kept.length > MAX_KEPT) this.#kept.shift();
    for (const client of [...this.#clients]) if (isForAll || client.sees(accountId)) client.send(text);
  }

  /** What came after this event; undefined when that is not known here any more. */
  #since(lastId: string | undefined): readonly Kept[] | undefined {
    const [generation, number = ''] = lastId?.split('.') ?? [];
    const last = /^\d{1,15}$/.test(number) ? Number(number) : Number.NaN;
    const oldest = this.#kept[0]?.number ?? this.#number + 1;
    const isKnown = generation === this.#generation && last >= oldest - 1 && last <= this.#number;
    return isKnown ? this.#kept.filter((kept) => kept.number > last) : undefined;
  }

  async #sendSnapshot(client: EventClient): Promise<void> {
    // The number of before: what changes while the overview is made is told again to who comes back.
    const id = `${this.#generation}.${this.#number}`;
    const overview = await overviewOf(this.#context, client.principal);
    client.send(eventText('snapshot', { at: Date.now(), overview }, id));
  }

  /** For those who see the whole cluster. */
  async #tellFigures(): Promise<void> {
    const readers = [...this.#clients].filter(({ principal }) => principal.accountId === undefined);
    const [first] = readers;
    if (first === undefined) return;
    const overview = await overviewOf(this.#context, first.principal);
    const text = eventText('figures', { at: Date.now(), overview });
    for (const client of readers) client.send(text);
  }

  #toAll(text: string): void {
    for (const client of [...this.#clients]) client.send(text);
  }
}
