import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { until } from '../../../shared/testkit/eventually.ts';
import { type HaproxyServer, startHaproxy } from '../../../shared/testkit/haproxy.ts';
import { freePort } from '../../../shared/testkit/local-service.ts';
import { scrape } from '../../../shared/testkit/metrics.ts';
import { CulvertProcess } from './processes.ts';
import { BASE_DOMAIN } from './tunnel.ts';

/** The edge as people run it: a real HAProxy with the project's configuration, and `culvert edge-sync` beside it. */

export class TestEdge {
  readonly haproxy: HaproxyServer;
  readonly #directory: string;
  readonly #redisUrl: string;
  #sync: CulvertProcess | undefined;
  #metricsPort = 0;

  private constructor(haproxy: HaproxyServer, directory: string, redisUrl: string) {
    this.haproxy = haproxy;
    this.#directory = directory;
    this.#redisUrl = redisUrl;
  }

  /** HAProxy runs; edge-sync does not yet. @param env variables of haproxy.cfg */
  static async start(redisUrl: string, env: Readonly<Record<string, string>> = {}): Promise<TestEdge> {
    const directory = mkdtempSync(join(tmpdir(), 'culvert-edge-'));
    return new TestEdge(await startHaproxy({ CULVERT_STATE_DIR: directory, ...env }), directory, redisUrl);
  }

  /** For a load: one place for all visitors. */
  readonly name = 'haproxy';
  next(): this {
    return this;
  }

  /** HAProxy that is restarted refuses connections for a moment. */
  async instead(): Promise<this> {
    await wait(100);
    return this;
  }

  get ownersFile(): string {
    return join(this.#directory, 'owners.map');
  }

  /** What a balancer's port is to visitors, as `TestNode.url` is for a node. */
  url(tunnel: string, path = '/'): string {
    return `http://${tunnel}.${BASE_DOMAIN}:${this.haproxy.httpPort}${path}`;
  }

  /** Resolves when edge-sync runs and HAProxy is in step. */
  async startSync(): Promise<void> {
    this.#metricsPort = await freePort();
    this.#sync = new CulvertProcess([
      'edge-sync',
      '--haproxy',
      this.haproxy.adminSocket,
      '--haproxy-state-dir',
      this.#directory,
      '--redis-url',
      this.#redisUrl,
      '--base-domain',
      BASE_DOMAIN,
      '--metrics-addr',
      `127.0.0.1:${this.#metricsPort}`,
    ]);
    await this.#sync.until('stdout', /"edge-sync is started"/);
    await until('edge-sync is ready', () => this.isReady(), 20_000);
  }

  get syncLog(): string {
    return this.#sync?.stdout ?? '';
  }

  async isReady(): Promise<boolean> {
    const asked = fetch(`http://127.0.0.1:${this.#metricsPort}/health/ready`, { signal: AbortSignal.timeout(1000) });
    return asked.then(
      async (response) => {
        await response.arrayBuffer();
        return response.ok;
      },
      () => false,
    );
  }

  /** Metrics of edge-sync. */
  metrics(): Promise<ReadonlyMap<string, number>> {
    return scrape(this.#metricsPort);
  }

  /** Ends edge-sync in order, or as a crash would. */
  async stopSync(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#sync?.kill(signal);
  }

  /** The entries of a map of HAProxy, without the one that edge-sync keeps for itself. */
  async map(file: 'owners.map' | 'nodes.map'): Promise<ReadonlyMap<string, string>> {
    const listing = await this.haproxy.command(`show map ${join(this.#directory, file)}`);
    const entries = new Map<string, string>();
    for (const line of listing.split('\n')) {
      const [, key = '', value = ''] = line.split(' ');
      if (key !== '' && key !== '_version') entries.set(key, value);
    }
    return entries;
  }

  /** Servers of HAProxy that are up and take visitors. */
  async up(): Promise<number> {
    const table = await this.haproxy.command('show servers state cores');
    return table.split('\n').filter((line) => {
      const [, , , , , operational, admin] = line.split(' ');
      return operational === '2' && (Number(admin) & 0x09) === 0;
    }).length;
  }

  async close(): Promise<void> {
    await this.stopSync('SIGKILL');
    await this.haproxy.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
