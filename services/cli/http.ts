import type { AgentConfig } from '../../shared/config/config.ts';
import { type AgentHandle, connect } from '../agent/index.ts';
import { agentOptions } from './agent-runner.ts';
import { HttpView } from './http-view.ts';
import type { HttpUi } from './program.ts';
import { stopSignal } from './stop-signal.ts';

/** How often round trips and counts are shown anew, milliseconds. */
const REFRESH = 500;

/** `culvert http`: one tunnel for one local service, with a view of what goes through it. */
export async function run(config: AgentConfig, ui: HttpUi): Promise<void> {
  const view = new HttpView({ out: process.stdout, ...ui });
  const agent = connect(
    agentOptions(config, ({ method, target, status, code, ms }) =>
      view.request({ time: Date.now(), method, path: target, status: status === 0 ? (code ?? 0) : status, ms }),
    ),
  );
  const refresh = setInterval(() => show(view, agent, config), REFRESH);
  agent.on('tunnel', () => show(view, agent, config));
  agent.on('connected', () => show(view, agent, config));
  agent.on('disconnected', () => show(view, agent, config));
  view.start();
  try {
    await Promise.race([stopSignal(), agent.closed]);
    view.update({ status: 'stopping' });
    await agent.close();
    const error = await agent.closed;
    if (error !== undefined) throw error;
  } finally {
    clearInterval(refresh);
    view.stop();
  }
}

function show(view: HttpView, agent: AgentHandle, config: AgentConfig): void {
  const sessions = agent.sessions.map(({ slot, state, roundTrip }) => ({ slot, state, rttMs: roundTrip }));
  const isOnline = sessions.some(({ state }) => state === 'online');
  const publicUrls = config.local.flatMap(({ name, url }) => {
    const publicUrl = agent.publicUrls.get(name);
    return publicUrl === undefined ? [] : [{ name, url: publicUrl, local: url }];
  });
  view.update({
    status: isOnline ? 'online' : publicUrls.length > 0 ? 'reconnecting' : 'connecting',
    sessions,
    publicUrls,
    active: agent.active,
  });
}
