/** Reads and writes the table that `show servers state` prints and `server-state-file` takes (management guide, section 9.3). */

export interface ServerRow {
  readonly backend: string;
  readonly server: string;
  readonly address: string;
  readonly port: number;
  readonly checkPort: number;
  /** Not found dead by its health checks. */
  readonly isUp: boolean;
  readonly admin: 'ready' | 'drain' | 'maint';
}

export interface ServersState {
  readonly rows: readonly ServerRow[];
  /** The lines of a `server-state-file` that brings the same addresses and states. */
  readonly file: readonly string[];
}

/** A file that says nothing, which HAProxy reads without a complaint. */
export const EMPTY_STATE_FILE = ['1'];

/** SRV_ADMF_FMAINT and SRV_ADMF_FDRAIN: what was set by the runtime API. */
const MAINT = 0x01;
const DRAIN = 0x08;
/** SRV_ST_RUNNING; 0 is stopped. */
const RUNNING = '2';

/** @throws Error for a table of another form */
export function parseServersState(text: string): ServersState {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const [version, header] = lines;
  if (version !== '1' || !header?.startsWith('# ')) throw new Error(`no state of servers: ${text.slice(0, 100)}`);
  const columns = header.slice(2).split(' ');
  const rows: ServerRow[] = [];
  const file = [version, header];
  for (const line of lines.slice(2)) {
    const fields = line.split(' ');
    const at = (column: string): string => fields[columns.indexOf(column)] ?? '';
    const flags = Number(at('srv_admin_state'));
    const admin = (flags & MAINT) !== 0 ? 'maint' : (flags & DRAIN) !== 0 ? 'drain' : 'ready';
    rows.push({
      backend: at('be_name'),
      server: at('srv_name'),
      address: at('srv_addr'),
      port: Number(at('srv_port')),
      checkPort: Number(at('srv_check_port')),
      isUp: at('srv_op_state') !== '0',
      admin,
    });
    const set = (column: string, value: string): void => {
      const index = columns.indexOf(column);
      if (index >= 0) fields[index] = value;
    };
    // After a restart everybody may serve until a check says otherwise: none of them must wait for two good checks first.
    if (admin !== 'maint') set('srv_op_state', RUNNING);
    // There are no agent checks; HAProxy prints a port for them all the same, and complains when it reads it.
    set('srv_agent_port', '0');
    set('srv_time_since_last_change', '0');
    file.push(fields.join(' '));
  }
  return { rows, file };
}
