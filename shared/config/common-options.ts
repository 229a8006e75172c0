import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Environment, option } from './option.ts';
import { logLevel, oneOf, text } from './values.ts';

/** What several services share. */

/** HS256 keys: at least as long as the hash (RFC 7518 section 3.2). */
export const MIN_HS256_SECRET_BYTES = 32;
export const SHORT_SECRET = 'HS256 needs at least 32 (RFC 7518 section 3.2); make one with "openssl rand -base64 48"';

/** An id of an agent, account or node. No slash, because session ids join such ids with it. */
export function identifier() {
  return text('<id>', 'an id of 1 to 128 letters, digits and . _ - @ :', /^[A-Za-z0-9][A-Za-z0-9._@:-]{0,127}$/);
}

/** XDG Base Directory Specification: state that persists between restarts. A relative XDG path is ignored, as it says. */
export function defaultStateDir(env: Environment): string {
  const { XDG_STATE_HOME: base, HOME: home } = env;
  return base?.startsWith('/') ? join(resolve(base), 'culvert') : join(home || homedir(), '.local/state/culvert');
}

export const loggingOptions = {
  'log-level': option({ type: logLevel(), default: 'info', help: 'Least severe log lines to write.' }),
  'log-requests': option({
    type: oneOf(['off', 'errors', 'all']),
    default: 'errors',
    help: 'Which requests to log: none, those answered with 5xx or cut short, or all.',
  }),
};
