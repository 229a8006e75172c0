import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { resetSocket } from '../../../shared/net/reset-socket.ts';

/** One of those that a balancer chooses from. */
export interface Backend {
  readonly name: string;
  /** Where agents come in, on the loopback. */
  readonly agentPort: number;
  isReady(): Promise<boolean>;
}

/** Between two looks at the readiness of a node, milliseconds: HAProxy's `inter`. */
const CHECK_INTERVAL = 250;
/** A connection that is refused is tried elsewhere so often: HAProxy's `retries` with `redispatch`. */
export const REDISPATCHES = 20;

/** Does for a cluster of the test what HAProxy does for a real one: looks who is ready, and spreads connections over them. */
export class Balancer<Node extends Backend> {
  readonly #nodes: readonly Node[];
  readonly #ready: Set<Node>;
  readonly #checks: readonly Promise<void>[];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #turn = 0;
  #closed = false;

  private constructor(nodes: readonly Node[]) {
    this.#nodes = nodes;
    this.#ready = new Set(nodes);
    this.#server = createServer({ noDelay: true, pauseOnConnect: true }, (agent) => void this.#carry(agent));
    this.#checks = nodes.map((node) => this.#check(node));
  }

  static async start<Node extends Backend>(nodes: readonly Node[]): Promise<Balancer<Node>> {
    const balancer = new Balancer(nodes);
    balancer.#server.listen(0, '127.0.0.1');
    await once(balancer.#server, 'listening');
    return balancer;
  }

  /** Where agents dial. */
  get agentPort(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The next one in turn of those that are ready; of all, when none is. */
  next(): Node {
    const candidates = this.#ready.size > 0 ? [...this.#ready] : this.#nodes;
    this.#turn += 1;
    const node = candidates[this.#turn % candidates.length];
    if (node === undefined) throw new Error('there are no nodes');
    return node;
  }

  /** Another than this one, which refused a connection. */
  async instead(of: Node): Promise<Node> {
    this.#ready.delete(of);
    if (this.#ready.size === 0) await wait(CHECK_INTERVAL);
    return this.next();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all(this.#checks);
  }

  async #check(node: Node): Promise<void> {
    while (!this.#closed) {
      if (await node.isReady()) this.#ready.add(node);
      else this.#ready.delete(node);
      await wait(CHECK_INTERVAL);
    }
  }

  async #carry(agent: Socket): Promise<void> {
    this.#hold(agent);
    const far = await this.#reach();
    if (far === undefined || this.#closed || agent.destroyed) {
      resetSocket(agent);
      far?.destroy();
      return;
    }
    agent.pipe(far).pipe(agent);
    agent.on('close', () => far.destroy());
    far.on('close', () => agent.destroy());
  }

  async #reach(): Promise<Socket | undefined> {
    let node = this.next();
    for (let attempt = 0; attempt <= REDISPATCHES && !this.#closed; attempt += 1) {
      const far = this.#hold(connect({ port: node.agentPort, host: '127.0.0.1', noDelay: true }));
      const isConnected = await once(far, 'connect').then(
        () => true,
        () => false,
      );
      if (isConnected) return far;
      node = await this.instead(node);
    }
    return undefined;
  }

  #hold(socket: Socket): Socket {
    this.#sockets.add(socket);
    return socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket));
  }
}
