import { Command, Option as CommandOption } from 'commander';
import { AGENT_SCHEMA } from '../../shared/config/agent-options.ts';
import {
  type AgentConfig,
  type CoreConfig,
  type EdgeSyncConfig,
  loadAgentConfig,
  loadCoreConfig,
  loadEdgeSyncConfig,
} from '../../shared/config/config.ts';
import { CORE_SCHEMA } from '../../shared/config/core-options.ts';
import { EDGE_SYNC_SCHEMA } from '../../shared/config/edge-sync-options.ts';
import { load } from '../../shared/config/load.ts';
import type { Address } from '../../shared/config/net-values.ts';
import type { Environment } from '../../shared/config/option.ts';
import { VERSION } from '../../shared/version.ts';
import { addOptions, givenFlags } from './command-options.ts';
import { CHECKED_SERVICES, type CheckedService, checkConfig } from './config-check.ts';
import { DEMO_SCHEMA } from './demo-options.ts';
import { httpConfig } from './http-input.ts';
import { fetchStatus } from './status/client.ts';
import { STATUS_SCHEMA, statusConfig } from './status/options.ts';
import { renderStatus } from './status/render.ts';
import { createToken, TOKEN_SCHEMA } from './token.ts';

/** `up` completes these with generated secrets and passes the result to `loadCoreConfig`. */
export interface UpInput {
  /** Core options by key, only those given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Environment;
  readonly file: string | undefined;
  /** Whether to start the demonstration service and an agent for it. */
  readonly demo: boolean;
}

export interface HttpUi {
  /** Paint the live view; otherwise write plain lines. */
  readonly live: boolean;
  readonly color: boolean;
}

/** What the commands that run a service do. Each resolves when its service has stopped. */
export interface CommandActions {
  up(input: UpInput): Promise<void>;
  server(config: CoreConfig): Promise<void>;
  agent(config: AgentConfig): Promise<void>;
  http(config: AgentConfig, ui: HttpUi): Promise<void>;
  demo(address: Address): Promise<void>;
  edgeSync(config: EdgeSyncConfig): Promise<void>;
}

/** What the program reads and writes besides its arguments. */
export interface ProgramIo {
  readonly env: Environment;
  readonly isTerminal: boolean;
  /** Characters in a line of the terminal; undefined where there is none. */
  readonly columns?: number | undefined;
  write(text: string): void;
  writeError(text: string): void;
}

/** `up` signs tokens for its own agent with its own key, so it cannot work with keys or claims that it does not choose. */
const NOT_FOR_UP = ['jwks-url', 'jwt-issuer', 'jwt-audience'] as const;

/**
 * The command line. `parseAsync` rejects with CommanderError for wrong usage and with CulvertError for a wrong
 * configuration; nothing is printed then and the process is not ended.
 */
export function buildProgram(actions: CommandActions, io: ProgramIo): Command {
  const program = new Command('culvert')
    .description('A self-hosted tunnel cluster: private services reachable at name.your.domain')
    .version(VERSION, '-V, --version', 'Print the version.')
    .helpOption('-h, --help', 'Print help.')
    .helpCommand('help [command]', 'Print help for a command.')
    .configureOutput({
      writeOut: (text) => io.write(text),
      writeErr: (text) => io.writeError(text),
      outputError: () => {},
    })
    .addHelpText(
      'after',
      '\nExit codes: 0 done, 1 failed while running, 2 wrong usage or configuration, 3 refused by the core,\n130 stopped by SIGINT, 143 stopped by SIGTERM.\n',
    )
    .exitOverride();

  const up = program
    .command('up')
    .description('Run everything on this machine: a core, a demonstration service and an agent for it')
    .addOption(configOption('TUNNEL_CONFIG'))
    .option('--demo', 'Start the demonstration service and its agent. (default)')
    .option('--no-demo', 'Start the core only.')
    .action(async () => {
      const { demo, config } = up.opts<{ demo?: boolean; config?: string }>();
      const flags = givenFlags(up, CORE_SCHEMA);
      await actions.up({ flags, env: io.env, file: config, demo: demo ?? true });
    });
  addOptions(up, CORE_SCHEMA, {
    without: NOT_FOR_UP,
    defaults: { 'jwt-secret': 'generated' },
  });

  const server = program
    .command('server')
    .description('Run a core node, which takes requests from visitors and sessions from agents')
    .addOption(configOption('TUNNEL_CONFIG'))
    .action(async () => {
      const { config } = server.opts<{ config?: string }>();
      await actions.server(loadCoreConfig({ flags: givenFlags(server, CORE_SCHEMA), env: io.env, file: config }));
    });
  addOptions(server, CORE_SCHEMA);

  const agent = program
    .command('agent')
    .description('Run an agent, which connects to a core and serves local services')
    .addOption(configOption('AGENT_CONFIG'))
    .action(async () => {
      const { config } = agent.opts<{ config?: string }>();
      await actions.agent(loadAgentConfig({ flags: givenFlags(agent, AGENT_SCHEMA), env: io.env, file: config }));
    });
  addOptions(agent, AGENT_SCHEMA);

  const http = program
    .command('http')
    .description('Serve one local service, with a live view of its requests')
    .argument('<port|url>', 'the local service: 3000, localhost:3000, or a URL with http, https, h2c or h2')
    .addOption(configOption('AGENT_CONFIG'))
    .option('--state-dir <directory>', 'Where "culvert up" keeps its state. (env: TUNNEL_STATE_DIR)')
    .option('--plain', 'Write plain lines even to a terminal.')
    .action(async (target: string) => {
      const { config, stateDir, plain } = http.opts<{ config?: string; stateDir?: string; plain?: boolean }>();
      const flags = givenFlags(http, AGENT_SCHEMA);
      const { TERM: terminal, NO_COLOR: noColor } = io.env;
      const live = io.isTerminal && plain !== true && terminal !== 'dumb';
      await actions.http(httpConfig({ target, flags, env: io.env, file: config, stateDir }), {
        live,
        // https://no-color.org: any value but the empty one turns colour off.
        color: live && (noColor ?? '') === '',
      });
    });
  addOptions(http, AGENT_SCHEMA, {
    without: ['local'],
    defaults: {
      server: 'that of "culvert up" on this machine',
      token: 'that of "culvert up" on this machine',
      subdomain: 'a random name',
      'metrics-port': '0',
    },
  });

  const edgeSync = program
    .command('edge-sync')
    .description('Keep HAProxy in step with the cluster: its servers, and which of them holds which tunnel')
    .addOption(configOption('EDGE_CONFIG'))
    .action(async () => {
      const { config } = edgeSync.opts<{ config?: string }>();
      const flags = givenFlags(edgeSync, EDGE_SYNC_SCHEMA);
      await actions.edgeSync(loadEdgeSyncConfig({ flags, env: io.env, file: config }));
    });
  addOptions(edgeSync, EDGE_SYNC_SCHEMA);

  const demo = program
    .command('demo')
    .description('Run the demonstration service alone, for an agent beside it')
    .action(() => actions.demo(load(DEMO_SCHEMA, { flags: givenFlags(demo, DEMO_SCHEMA) }).addr));
  addOptions(demo, DEMO_SCHEMA);

  const status = program
    .command('status')
    .description('Show nodes, agents, tunnels and who is where, as any node of the cluster tells it')
    .option('--json', 'Print what the API answers, as JSON.')
    .option('--state-dir <directory>', 'Where "culvert up" keeps its state. (env: TUNNEL_STATE_DIR)')
    .action(async () => {
      const { json, stateDir } = status.opts<{ json?: boolean; stateDir?: string }>();
      const answer = await fetchStatus(statusConfig(givenFlags(status, STATUS_SCHEMA), io.env, stateDir));
      io.write(json ? `${JSON.stringify(answer, null, 2)}\n` : renderStatus(answer, io.columns));
    });
  addOptions(status, STATUS_SCHEMA);

  const create = program
    .command('token')
    .description('Make tokens for agents and for the API')
    .command('create')
    .description('Print a token, signed with the jwt-secret of the core (HS256)')
    .action(async () => {
      io.write(`${await createToken(givenFlags(create, TOKEN_SCHEMA), io.env)}\n`);
    });
  addOptions(create, TOKEN_SCHEMA);

  const check = program
    .command('config')
    .description('Look at configuration files')
    .command('check')
    .description('Check a configuration file together with the environment, and print the resulting values')
    .argument('<file>', 'a JSON or YAML file')
    .addOption(
      new CommandOption('--service <service>', 'Which service it is for. (default: found from its keys)').choices(
        CHECKED_SERVICES,
      ),
    )
    .action((file: string) => {
      io.write(checkConfig(file, check.opts<{ service?: CheckedService }>().service, io.env));
    });

  return program;
}

function configOption(variable: string): CommandOption {
  return new CommandOption('--config <file>', `JSON or YAML file with options. (env: ${variable})`);
}
