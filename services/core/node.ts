import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { CoreConfig } from '../../shared/config/config.ts';
import { expandUrlTemplate } from '../../shared/config/net-values.ts';
import { redisAddress } from '../../shared/config/redis-options.ts';
import type { ClusterCalls } from '../../shared/control/calls.ts';
import { CulvertError } from '../../shared/errors/codes.ts';
import type { Logger } from '../../shared/observability/logger.ts';
import { type MetricsServer, startMetricsServer } from '../../shared/observability/metrics-server.ts';
import { ByteBudget } from '../../shared/protocol/budget.ts';
import { createMemoryRegistry } from '../../shared/registry/memory/memory-registry.ts';
import { createRedisRegistry } from '../../shared/registry/redis/redis-registry.ts';
import type { EdgeAddress, NodeId, Registry } from '../../shared/registry/registry.ts';
import { ensureServerCertificate, loadCertificate } from '../../shared/tls/certificates.ts';
import { type ClusterIdentity, clusterIdentity } from '../../shared/tls/cluster-identity.ts';
import { identityFromFiles } from '../../shared/tls/identity-files.ts';
import { createApiTokenVerifier } from '../../shared/tokens/api-token.ts';
import type { TokenKeys } from '../../shared/tokens/jwt.ts';
import { VERSION } from '../../shared/version.ts';
import { bearerTokens } from '../dashboard/api/auth/bearer.ts';
import { type ApiServer, startApi } from '../dashboard/api/server.ts';
import { AccessLog } from './access-log.ts';
import { Cluster } from './cluster.ts';
import { NodeControl } from './control.ts';
import { Drain } from './drain.ts';
import { createPublicListener, type PublicListener, type PublicListenerOptions } from './edge/listener.ts';
import { IsolationWatch } from './isolation.ts';
import { CoreMetrics } from './metrics.ts';
import { TunnelProxy } from './proxy/proxy.ts';
import { Affinity } from './router/affinity.ts';
import { Router } from './router/router.ts';
import { AgentListener } from './sessions/agent-listener.ts';
import { SessionTable } from './sessions/session-table.ts';
import { createTokenVerifier, type TokenVerifier } from './sessions/token-verifier.ts';
import { StallWatch } from './stall-watch.ts';

/** Where a running node listens. */
export interface NodeAddresses {
  readonly publicPort: number;
  readonly publicTlsPort: number | undefined;
  readonly agentPort: number;
  readonly dashboardPort: number;
  readonly metricsPort: number;
  /** Undefined for a node that is alone. */
  readonly relayPort: number | undefined;
}

/** How often certificates are read, or their generated ones renewed, again: milliseconds. */
const CERTIFICATE_INTERVAL = 6 * 3_600_000;
/** Streams of a session that was replaced by a newer one may finish for this long, milliseconds. */
const REPLACED_DEADLINE = 60_000;

/** One core node: everything it runs, started and stopped in order. */
export class CoreNode {
  readonly #config: CoreConfig;
  readonly #log: Logger;
  readonly #nodeId: NodeId;
  readonly #registry: Registry;
  readonly #table = new SessionTable();
  readonly #budget: ByteBudget;
  readonly #metrics: CoreMetrics;
  readonly #proxy: TunnelProxy;
  readonly #router: Router;
  readonly #control: NodeControl;
  readonly #drain: Drain;
  readonly #isolationWatch: IsolationWatch;
  #cluster: Cluster | undefined;
  #public: PublicListener | undefined;
  /** Kept from the start: agents are still told URLs while the node drains and the ports are closed. */
  #publicPorts: Pick<NodeAddresses, 'publicPort' | 'publicTlsPort'> = { publicPort: 0, publicTlsPort: undefined };
  #agents: AgentListener | undefined;
  #api: ApiServer | undefined;
  #metricsServer: MetricsServer | undefined;
  #unsubscribe: () => void = () => {};
  #certificateTimer: NodeJS.Timeout | undefined;
  #serving = false;
  readonly #stallWatch = new StallWatch(
    () => this.#registry.unavailable() === undefined && (this.#cluster?.isLinked ?? true),
  );
  #caFile: string | undefined;

  constructor(config: CoreConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#nodeId = config.nodeId as NodeId;
    this.#budget = new ByteBudget(config.processBuffer);
    this.#registry = createRegistry(config, log);
    this.#router = new Router({
      registry: this.#registry,
      table: this.#table,
      nodeId: this.#nodeId,
      linkTo: (nodeId) => this.#cluster?.upstream(nodeId),
      affinity: new Affinity(config.clusterSecret ?? config.jwtSecret),
    });
    const access = new AccessLog(log, config.logRequests);
    this.#metrics = new CoreMetrics({
      table: this.#table,
      registry: this.#registry,
      proxy: () => this.#proxy,
      visitors: () => this.#public?.visitors ?? 0,
      heldBytes: () => this.#budget.used,
    });
    this.#proxy = new TunnelProxy({
      router: this.#router,
      budget: this.#budget,
      maxBodySize: config.maxBodySize,
      responseTimeout: config.responseTimeout,
      onOutcome: (outcome) => {
        this.#metrics.onRequest(outcome);
        access.onRequest(outcome);
      },
    });
    this.#drain = new Drain({
      log,
      cluster: () => this.#cluster,
      agents: () => this.#agents,
      timeout: config.drainTimeout,
    });
    this.#control = new NodeControl({
      drain: this.#drain,
      nodeId: this.#nodeId,
      registry: this.#registry,
      table: this.#table,
      traffic: this.#metrics,
      log,
      readiness: () => this.#readiness(),
      load: () => ({
        visitors: this.#public?.visitors ?? 0,
        streams: this.#proxy.active,
        buffered: this.#budget.used,
      }),
      cluster: () => this.#cluster,
    });
    this.#isolationWatch = new IsolationWatch({
      problem: () => this.#registry.unavailable(),
      peers: () => this.#cluster?.peers ?? [],
      calls: this.#control.calls,
      onChange: (isIsolated) => this.#drain.setIsolated(isIsolated),
      log,
    });
  }

  /** Asks this node and the others of its cluster. */
  get calls(): ClusterCalls {
    return this.#control.calls;
  }

  /** PEM file that verifies the agent listener; undefined when its certificate was given by files. */
  get caFile(): string | undefined {
    return this.#caFile;
  }

  get addresses(): NodeAddresses {
    return {
      ...this.#publicPorts,
      agentPort: this.#agents?.address.port ?? 0,
      dashboardPort: this.#api?.port ?? 0,
      metricsPort: this.#metricsServer?.port ?? 0,
      relayPort: this.#cluster?.relayPort,
    };
  }

  /**
   * Visitors come last: what they ask for must be answerable from the first request on. The health check is up before them,
   * but says "not ready" until they are let in.
   * @throws CulvertError `invalid_config` for an address, certificate or key that cannot be used; nothing is left running
   */
  async start(): Promise<void> {
    try {
      const config = this.#config;
      const verifier = tokenVerifier(config);
      const certificate = await this.#agentCertificate();
      this.#unsubscribe = this.#registry.subscribe((event) => {
        if (event.type === 'session-replaced' && event.nodeId === this.#nodeId) this.#closeReplaced(event.session);
      });
      this.#metricsServer = await startMetricsServer(config.metricsAddr, this.#metrics.registry);
      this.#api = await startApi({
        ...config.dashboardAddr,
        nodeId: this.#nodeId,
        version: VERSION,
        readiness: () => this.#readiness(),
        log: this.#log,
        registry: this.#registry,
        calls: this.#control.calls,
        publicUrl: (name) => this.publicUrl(name),
        authenticators: [bearerTokens(createApiTokenVerifier(tokenKeys(config), issuerOf(config)))],
      });
      // Before the first agent comes: where it belongs is decided among all nodes.
      this.#cluster = await this.#startCluster();
      this.#agents = this.#createAgentListener(verifier, certificate);
      await this.#agents.listen();
      await this.#cluster?.join(this.#edgeAddress());
      await this.#listenPublic();
      this.#certificateTimer = setInterval(() => void this.#renewCertificates(), CERTIFICATE_INTERVAL);
      this.#certificateTimer.unref();
      this.#serving = true;
      this.#log.info({ ...this.addresses, version: VERSION }, 'node is ready');
    } catch (error) {
      await this.stop(0);
      throw error;
    }
  }

  /**
   * Readiness turns first, so that balancers and other nodes stop sending; then visitors finish and agents move or, where
   * there is no other node, are told to go once the visitors need them no more; then the links to other nodes; health and
   * metrics stay to the end.
   * @param deadline milliseconds for requests in flight. Default: the configured drain timeout
   */
  async stop(deadline = this.#config.drainTimeout): Promise<void> {
    const started = Date.now();
    const left = (): number => Math.max(0, deadline - (Date.now() - started));
    const wasServing = this.#serving;
    this.#serving = false;
    clearInterval(this.#certificateTimer);
    if (wasServing) {
      this.#log.info({ requests: this.#proxy.active, deadline }, 'node is draining');
      // With others to go to, agents move while visitors finish; alone, the visitors' requests need them to the end.
      const isMoving = await this.#drain.leave(deadline);
      // Who balances visitors looks at the readiness now and then: until it has, a closed door would be a failed request.
      if (isMoving) await wait(Math.min(this.#config.drainDelay, deadline));
      const complete = await this.#public?.close(left());
      if (complete === false) this.#log.warn('the drain deadline passed: requests in flight were cut off');
    }
    if (this.#agents?.isListening) await this.#agents.close(left());
    await this.#cluster?.stop(left());
    this.#unsubscribe();
    this.#stallWatch.close();
    this.#isolationWatch.close();
    this.#control.close();
    this.#proxy.close();
    this.#router.close();
    await this.#registry.close();
    await this.#api?.close();
    await this.#metricsServer?.close();
    if (wasServing) this.#log.info('node has stopped');
  }

  #readiness(): { ready: boolean; checks: Record<string, boolean> } {
    const awake = !this.#stallWatch.isRecovering;
    // Told, but no reason to send visitors elsewhere: running tunnels do not need the registry, and all nodes share it.
    const registry = this.#registry.unavailable() === undefined;
    // A node that has never read it would know no tunnel.
    const loaded = this.#registry.isLoaded;
    // The others, who have it, answer better then.
    const joined = !this.#drain.isIsolated;
    const admitting = !this.#drain.isDraining;
    return {
      ready: this.#serving && awake && loaded && joined && admitting,
      checks: { serving: this.#serving, awake, loaded, joined, admitting, registry },
    };
  }

  async #agentCertificate(): Promise<{ cert: string; key: string }> {
    const { agentTlsCert, agentTlsKey, agentServerName, stateDir, baseDomain, agentAddr } = this.#config;
    if (agentTlsCert !== undefined && agentTlsKey !== undefined) return loadCertificate(agentTlsCert, agentTlsKey);
    const made = await ensureServerCertificate(join(stateDir, 'tls'), {
      hosts: [
        ...new Set([
          'localhost',
          '127.0.0.1',
          '::1',
          baseDomain,
          `*.${baseDomain}`,
          agentAddr.host || 'localhost',
          agentServerName ?? 'localhost',
        ]),
      ],
    });
    if (this.#caFile === undefined) this.#log.info({ ca: made.caFile }, 'agents verify this node with this authority');
    this.#caFile = made.caFile;
    return made;
  }

  /** A certificate that was replaced on disk, or is near its end, is used for connections from now on. */
  async #renewCertificates(): Promise<void> {
    try {
      const agent = await this.#agentCertificate();
      this.#agents?.reloadTls(agent.cert, agent.key);
      await this.#cluster?.renewIdentity();
      const { publicTlsCert, publicTlsKey } = this.#config;
      if (publicTlsCert === undefined || publicTlsKey === undefined) return;
      const visitors = await loadCertificate(publicTlsCert, publicTlsKey);
      this.#public?.reloadTls(visitors.cert, visitors.key);
    } catch (error) {
      this.#log.error({ err: error }, 'a certificate could not be renewed; the old one stays in use');
    }
  }

  #createAgentListener(verifier: TokenVerifier, certificate: { cert: string; key: string }): AgentListener {
    const config = this.#config;
    return new AgentListener({
      ...listenHost(config.agentAddr),
      cert: certificate.cert,
      key: certificate.key,
      registry: this.#registry,
      table: this.#table,
      verifier,
      log: this.#log,
      nodeId: this.#nodeId,
      version: VERSION,
      baseDomain: config.baseDomain,
      publicUrl: (name) => this.publicUrl(name),
      authTimeout: config.authTimeout,
      heartbeatInterval: config.heartbeatInterval,
      heartbeatTimeout: config.heartbeatTimeout,
      maxConnections: config.maxConnections,
      maxConnectionsPerAccount: config.maxConnectionsPerAccount,
      maxTunnelsPerAccount: config.maxTunnelsPerAccount,
      maxStreamsPerSession: config.maxStreamsPerSession,
      sessionBuffer: config.sessionBuffer,
      processBudget: this.#budget,
      whenPlaced: () => this.#cluster?.joined,
      placeElsewhere: (agentId, request) => this.#cluster?.placement.elsewhere(agentId, request),
      onAuthenticated: () => this.#metrics.onAgent(true),
      onRefused: () => this.#metrics.onAgent(false),
    });
  }

  /** The URL that visitors use for a tunnel. A custom domain stands for itself. */
  publicUrl(name: string): string {
    const template = this.#config.publicUrl;
    const { publicPort, publicTlsPort } = this.addresses;
    const port = template.startsWith('https:') ? (publicTlsPort ?? publicPort) : publicPort;
    if (!name.includes('.')) return expandUrlTemplate(template, name, port);
    const url = new URL(expandUrlTemplate(template, 'x', port));
    return `${url.protocol}//${name}${url.port === '' ? '' : `:${url.port}`}`;
  }

  async #startCluster(): Promise<Cluster | undefined> {
    const { redisUrl, relayAddr, relayAdvertise } = this.#config;
    if (redisUrl === undefined) {
      // Alone it is the one member, so that what lists the cluster's nodes lists it.
      const alone = { relayAddr: '', agentAddr: '', version: VERSION, startedAt: Date.now() };
      await this.#registry.join({ nodeId: this.#nodeId, ...alone });
      return undefined;
    }
    return Cluster.start({
      nodeId: this.#nodeId,
      registry: this.#registry,
      router: this.#router,
      table: this.#table,
      log: this.#log,
      processBudget: this.#budget,
      calls: this.#control.server,
      identity: () => relayIdentity(this.#config),
      relayAddr,
      relayAdvertise,
      agentAdvertise: this.#config.agentAdvertise,
      serverName: this.#config.agentServerName,
    });
  }

  /** A port that the system chooses when it listens is not known yet, so nobody in front can be told of it. */
  #edgeAddress(): EdgeAddress | undefined {
    const { edgeAdvertise, relayAdvertise, publicAddr } = this.#config;
    if (publicAddr.port === 0) return undefined;
    const { agentPort, dashboardPort } = this.addresses;
    const host = edgeAdvertise ?? relayAdvertise?.host ?? hostname();
    return { host, publicPort: publicAddr.port, agentPort, healthPort: dashboardPort };
  }

  async #listenPublic(): Promise<void> {
    this.#public = createPublicListener(await publicOptions(this.#config, this.#proxy));
    try {
      await this.#public.listen();
      const isTls = this.#config.publicTlsAddr !== undefined;
      this.#publicPorts = {
        publicPort: this.#public.address.port,
        publicTlsPort: isTls ? this.#public.tlsAddress.port : undefined,
      };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new CulvertError('invalid_config', `public-addr: ${why}`, { cause: error });
    }
  }

  #closeReplaced(ref: Parameters<SessionTable['find']>[0]): void {
    this.#table.find(ref)?.drain('a newer session of this agent took over', REPLACED_DEADLINE, {
      code: 'session_replaced',
      // Its endpoints stay until the newer session has registered the tunnels.
      keepServing: true,
    });
  }
}

/** Of this node towards the others: from files, or derived from the secret that all share. */
function relayIdentity(config: CoreConfig): Promise<ClusterIdentity> {
  const { nodeId, clusterSecret, relayTlsCert: cert, relayTlsKey: key, relayTlsCa: ca } = config;
  if (cert === undefined || key === undefined || ca === undefined) return clusterIdentity(clusterSecret ?? '', nodeId);
  return identityFromFiles({ cert, key, ca }, nodeId);
}

function createRegistry(config: CoreConfig, logger: Logger): Registry {
  const { nodeId } = config;
  const redis = redisAddress(config);
  return redis === undefined
    ? createMemoryRegistry()
    : createRedisRegistry({ redis, nodeId: nodeId as NodeId, logger });
}

function tokenVerifier(config: CoreConfig): TokenVerifier {
  const { jwtAudience } = config;
  return createTokenVerifier(tokenKeys(config), {
    ...issuerOf(config),
    ...(jwtAudience === undefined ? {} : { audience: jwtAudience }),
  });
}

function tokenKeys({ jwksUrl, jwtSecret }: CoreConfig): TokenKeys {
  return jwksUrl === undefined ? { secret: jwtSecret ?? '' } : { jwksUrl };
}

function issuerOf({ jwtIssuer }: CoreConfig): { readonly issuer?: string } {
  return jwtIssuer === undefined ? {} : { issuer: jwtIssuer };
}

async function publicOptions(config: CoreConfig, proxy: TunnelProxy): Promise<PublicListenerOptions> {
  const { publicAddr, publicTlsAddr, publicTlsCert, publicTlsKey } = config;
  const tls =
    publicTlsAddr === undefined || publicTlsCert === undefined || publicTlsKey === undefined
      ? undefined
      : { ...listenHost(publicTlsAddr), ...(await loadCertificate(publicTlsCert, publicTlsKey)) };
  return {
    handler: proxy,
    baseDomain: config.baseDomain,
    ...listenHost(publicAddr),
    trustedProxies: (config.trustedProxies ?? []).map(({ address, prefix }) => `${address}/${prefix}`),
    proxyProtocol: config.proxyProtocol === 'on',
    maxVisitors: config.maxVisitors,
    maxHeaderSize: config.maxHeaderSize,
    keepAliveTimeout: config.idleTimeout,
    tls,
  };
}

/** An empty host in the configuration means all addresses, which a listener takes as no host. */
function listenHost(address: { readonly host: string; readonly port: number }): {
  host: string | undefined;
  port: number;
} {
  return { host: address.host === '' ? undefined : address.host, port: address.port };
}
