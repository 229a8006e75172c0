import { get } from 'node:http';
import { createServer } from 'node:net';
import { CulvertError } from '../../shared/errors/codes.ts';

/** Where load goes: always 127.0.0.1, since the rig never leaves loopback. */
export interface Endpoint {
  readonly port: number;
  /** Value of the Host header. */
  readonly host: string;
}

/** True when a request for the path is answered with 200; undefined otherwise, to be asked again. */
export async function answers(target: Endpoint, path: string): Promise<true | undefined> {
  return await new Promise((resolve) => {
    const options = { host: '127.0.0.1', port: target.port, path, agent: false, timeout: 5000 };
    const request = get({ ...options, headers: { host: target.host } }, (response) => {
      response.resume().once('close', () => resolve(response.statusCode === 200 ? true : undefined));
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(undefined));
  });
}

/** A port that nothing listens on now. For programs that cannot tell which one they got for port 0. */
export async function freePort(): Promise<number> {
  const server = createServer();
  return await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port);
        else reject(new CulvertError('internal_error', 'the system gave no port'));
      });
    });
  });
}
