import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { Flag, FrameType } from '../frame.ts';
import { Session, type SessionHandler } from '../session.ts';
import type { Stream, StreamSink } from '../stream-types.ts';

const HEADERS = ['Host', 'demo.localhost'];
const REQUEST = { method: 'POST', target: '/', tunnel: 'demo', meta: '', headers: [...HEADERS, 'Content-Length', '2'] };
const UNEXPECTED: SessionHandler = {
  onControl: () => {},
  onStream: () => new Watch(),
  onGoAway: () => {},
  onClosed: () => {},
};

/** Waits for the end of a stream and takes what comes before it. */
class Watch implements StreamSink {
  readonly closed: Promise<void>;
  #close: () => void = () => {};

  constructor() {
    this.closed = new Promise((resolve) => {
      this.#close = resolve;
    });
  }

  onHead(): void {}
  onData(): void {}
  onTrailers(): void {}
  onWritable(): void {}

  onClose(): void {
    this.#close();
  }
}

/**
 * Lets a core and an agent do what exchange.json tells. Returns all that each of them sent.
 * @param coreSocket one end of a connection  @param agentSocket its other end
 */
export async function playExchange(coreSocket: Duplex, agentSocket: Duplex): Promise<{ agent: Buffer; core: Buffer }> {
  const fromAgent: Buffer[] = [];
  const fromCore: Buffer[] = [];
  coreSocket.on('data', (chunk: Buffer) => fromAgent.push(chunk));
  agentSocket.on('data', (chunk: Buffer) => fromCore.push(chunk));
  const closed = Promise.all([once(coreSocket, 'close'), once(agentSocket, 'close')]);
  const { promise: slowAccepted, resolve: acceptSlow } = Promise.withResolvers<void>();
  const { promise: registered, resolve: register } = Promise.withResolvers<void>();

  const core: Session = new Session(
    coreSocket,
    {
      ...UNEXPECTED,
      onControl(type) {
        if (type === FrameType.AuthRequest) {
          core.send(FrameType.AuthResponse, 0, { success: true, features: ['flow-control'] });
          core.authenticated();
        } else {
          const publicUrl = 'http://demo.localhost:8080';
          core.send(type, Flag.Ack, { subdomain: 'demo', success: true, public_url: publicUrl });
          register();
        }
      },
    },
    { role: 'opener' },
  );
  const agent: Session = new Session(
    agentSocket,
    {
      ...UNEXPECTED,
      onControl(type) {
        if (type !== FrameType.AuthResponse) return;
        agent.authenticated();
        agent.send(FrameType.RegisterTunnel, 0, { subdomain: 'demo' });
      },
      onStream(stream, head) {
        if (head.target === '/slow') acceptSlow();
        else answer(stream);
        return new Watch();
      },
    },
    { role: 'acceptor' },
  );

  agent.send(FrameType.AuthRequest, 0, { token: 't', features: ['flow-control'] });
  await registered;
  const first = new Watch();
  core.open(REQUEST, Buffer.from('hi'), true, first);
  await first.closed;
  const slow = core.open(
    { ...REQUEST, method: 'GET', target: '/slow', headers: HEADERS },
    undefined,
    true,
    new Watch(),
  );
  await slowAccepted;
  slow.reset('canceled', 'the visitor went away');
  core.goAway('the node is shutting down', 30_000, { code: 'node_draining' });
  await closed;
  return { agent: Buffer.concat(fromAgent), core: Buffer.concat(fromCore) };
}

function answer(stream: Stream): void {
  // What a service says at once may be sent before `onStream` has returned.
  stream.sendHead({ status: 200, reason: 'OK', headers: ['Trailer', 'Sum'] }, Buffer.from('hel'), false);
  stream.write(Buffer.from('lo'), false);
  stream.sendTrailers(['Sum', '5d41']);
}
