import { readFileSync } from 'node:fs';
import type { CulvertError, ErrorCode } from '../../../shared/errors/codes.ts';
import type { TunnelResponse } from '../../../shared/protocol/messages.ts';
import { createForwarder } from '../../agent/forward/forwarder.ts';
import { KnownNodes } from '../../agent/known-nodes.ts';
import { Link } from '../../agent/link.ts';
import type { TestNode } from './cluster-kit.ts';
import { signToken, stateDir } from './tunnel.ts';

export interface OneSessionOptions {
  readonly node: TestNode;
  readonly account: string;
  /** Of the agent's process: a session of the same agent, instance and slot replaces the one before. */
  readonly instance: string;
  readonly tunnel: string;
  readonly url: string;
}

/** One session of an agent on exactly this node, which never dials anew: for what a whole agent would mend by itself. */
export class OneSession {
  readonly #tunnel: string;
  readonly #url: string;
  readonly #link: Link;
  readonly #answers: ((response: TunnelResponse) => void)[] = [];
  readonly #opened = Promise.withResolvers<void>();
  /** The code of the core's Go Away. */
  readonly sentAway: Promise<ErrorCode | undefined>;
  readonly closed: Promise<CulvertError>;

  private constructor({ node, instance, tunnel, url }: OneSessionOptions, agentId: string, token: string) {
    this.#tunnel = tunnel;
    this.#url = url;
    const sentAway = Promise.withResolvers<ErrorCode | undefined>();
    const closed = Promise.withResolvers<CulvertError>();
    this.sentAway = sentAway.promise;
    this.closed = closed.promise;
    // Whoever waits for the opening hears of a refusal; nobody has to.
    this.#opened.promise.catch(() => {});
    this.#link = new Link(
      token,
      {
        server: { host: '127.0.0.1', port: node.agentPort },
        certifiedHost: '127.0.0.1',
        tls: { ca: readFileSync(`${stateDir}/tls/ca.crt`, 'utf8') },
        redirects: 1,
        agentId,
        instanceId: instance,
        slot: 0,
        sessions: 1,
        nodes: new KnownNodes(),
        version: 'test',
        connectTimeout: 10_000,
        forwarder: createForwarder({ mappings: { [tunnel]: url } }),
      },
      {
        onOpen: () => this.#opened.resolve(),
        onTunnel: (response) => this.#answers.shift()?.(response),
        onRedirect: () => this.#opened.reject(new Error('sent on, though it was before')),
        onGoAway: ({ code }) => sentAway.resolve(code),
        onClosed: (error) => {
          this.#opened.reject(error);
          closed.resolve(error);
        },
      },
    );
  }

  /** Resolves when the node let it in. @throws CulvertError of the core */
  static async open(options: OneSessionOptions): Promise<OneSession> {
    const agentId = `agent-${options.account}`;
    const session = new OneSession(options, agentId, await signToken({ agentId, accountId: options.account }));
    await session.#opened.promise;
    return session;
  }

  /** Asks for the tunnel. @returns the core's answer */
  register(): Promise<TunnelResponse> {
    const answered = new Promise<TunnelResponse>((resolve) => this.#answers.push(resolve));
    this.#link.register({ name: this.#tunnel, url: this.#url }, true);
    return answered;
  }

  unregister(): void {
    this.#link.unregister(this.#tunnel);
  }

  close(): void {
    this.#link.close();
  }
}
