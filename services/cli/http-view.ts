/** What `culvert http` shows: a pure rendering of a state, and the driver that paints it or writes plain lines. */

export interface HttpViewState {
  readonly status: 'connecting' | 'online' | 'reconnecting' | 'stopping';
  readonly publicUrls: readonly PublicUrl[];
  readonly sessions: readonly SessionView[];
  /** Oldest first, `MAX_REQUESTS` at most. */
  readonly requests: readonly RequestView[];
  readonly totals: Totals;
}

export interface PublicUrl {
  readonly name: string;
  readonly url: string;
  /** The local service's URL. */
  readonly local: string;
}

export interface SessionView {
  readonly slot: number;
  readonly state: 'connecting' | 'online' | 'waiting';
  /** Milliseconds; undefined until the first heartbeat came back. */
  readonly rttMs: number | undefined;
}

export interface RequestView {
  /** When it ended, milliseconds since the Unix epoch. */
  readonly time: number;
  readonly method: string;
  /** As the visitor sent it: any bytes. */
  readonly path: string;
  /** HTTP status, or an error code where no answer came. */
  readonly status: number | string;
  /** Duration in milliseconds. */
  readonly ms: number;
}

export interface Totals {
  readonly requests: number;
  /** Answered with 5xx, or not at all. */
  readonly errors: number;
  /** In flight now. */
  readonly active: number;
}

export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly color: boolean;
}

export const MAX_REQUESTS = 100;

const EMPTY: HttpViewState = {
  status: 'connecting',
  publicUrls: [],
  sessions: [],
  requests: [],
  totals: { requests: 0, errors: 0, active: 0 },
};

/** Fits the screen: `rows` lines at most, none wider than `columns`; the newest requests that fit, newest first. */
export function renderHttpView(state: HttpViewState, screen: Screen): string {
  const style = painter(screen.color);
  const lines: Line[] = [
    [style.bold('culvert'), plain('  Ctrl+C stops it')],
    [],
    [plain(label('Status')), (state.status === 'online' ? style.green : style.yellow)(state.status)],
    ...state.publicUrls.map(
      (each, index): Line => [
        plain(label(index === 0 ? 'Forwarding' : '')),
        style.bold(each.url),
        plain(` -> ${each.local}`),
      ],
    ),
    ...state.sessions.map(
      (session, index): Line => [
        plain(label(index === 0 ? 'Sessions' : '')),
        plain(`${session.slot}  `),
        (session.state === 'online' ? style.green : style.yellow)(session.state),
        plain(session.rttMs === undefined ? '' : `  ${formatMs(session.rttMs)} round trip`),
      ],
    ),
    [
      plain(label('Requests')),
      plain(`${state.totals.requests} total, ${state.totals.errors} failed, ${state.totals.active} active`),
    ],
    [],
  ];
  const room = Math.max(0, screen.rows - lines.length);
  const newest = room === 0 ? [] : state.requests.slice(-room).reverse();
  for (const request of newest) {
    // The path is what shrinks: status and duration stay in sight however long it is.
    const method = printable(request.method).slice(0, 8).padEnd(8);
    const end = `  ${String(request.status).padStart(3)}  ${formatMs(request.ms).padStart(8)}`;
    const width = Math.max(0, screen.columns - 10 - method.length - 1 - end.length);
    const path = shorten(printable(request.path), width).padEnd(width);
    const paint = isFailure(request.status) ? style.red : plain;
    lines.push([style.dim(`${clock(request.time)}  `), plain(`${method} ${path}`), paint(end)]);
  }
  return lines
    .slice(0, screen.rows)
    .map((line) => fit(line, screen.columns))
    .join('\n');
}

/**
 * A visitor chooses paths and methods, and Latin-1 text on the wire can hold C1 controls: what is not a visible Latin-1
 * character becomes `?`, so that nothing reaches the terminal as a command and each character is one column wide.
 */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\xa1-\xac\xae-\xff]/g, '?');
}

/** What the driver needs of a stream; `process.stdout` is one. */
export interface ViewOutput {
  readonly columns?: number;
  readonly rows?: number;
  readonly writableNeedDrain: boolean;
  write(text: string): boolean;
  on(event: 'resize', listener: () => void): unknown;
  off(event: 'resize', listener: () => void): unknown;
}

interface HttpViewOptions {
  readonly out: ViewOutput;
  /** Paint the alternate screen; otherwise write a line for each request and each change of status. */
  readonly live: boolean;
  readonly color: boolean;
}

const REPAINT_MS = 100;
const ENTER_SCREEN = '\x1b[?1049h\x1b[?25l';
const LEAVE_SCREEN = '\x1b[?25h\x1b[?1049l';

/** Keeps the state and shows it: painted at most ten times a second, or as lines. */
export class HttpView {
  readonly #options: HttpViewOptions;
  #state: HttpViewState = EMPTY;
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  #unwritten = 0;

  constructor(options: HttpViewOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    if (!this.#options.live) return;
    this.#options.out.on('resize', this.#schedule);
    // Whatever ends the process, the user gets the usual screen and the cursor back.
    process.once('exit', this.#leave);
    this.#options.out.write(ENTER_SCREEN);
    this.#paint();
  }

  /** Changes the parts given; `active` is the number of requests in flight. */
  update({ active, ...change }: Partial<Omit<HttpViewState, 'requests'>> & { readonly active?: number }): void {
    const before = this.#state;
    this.#state = { ...before, ...change };
    if (active !== undefined) this.#state = { ...this.#state, totals: { ...this.#state.totals, active } };
    if (this.#options.live) this.#schedule();
    else if (this.#running) {
      if (before.status !== this.#state.status) this.#line(`status ${this.#state.status}`);
      for (const { url, local } of this.#state.publicUrls) {
        if (!before.publicUrls.some((each) => each.url === url)) this.#line(`forwarding ${url} -> ${local}`);
      }
    }
  }

  /** Adds a request that has ended and counts it; `active` is the caller's to keep. */
  request(request: RequestView): void {
    const { totals, requests } = this.#state;
    const errors = totals.errors + (isFailure(request.status) ? 1 : 0);
    this.#state = {
      ...this.#state,
      requests: [...requests.slice(-(MAX_REQUESTS - 1)), request],
      totals: { ...totals, requests: totals.requests + 1, errors },
    };
    if (this.#options.live) this.#schedule();
    else if (this.#running) {
      const { method, path, status, ms } = request;
      this.#line(`${method} ${path} ${status} ${formatMs(ms)}`, request.time);
    }
  }

  /** Gives the screen back and leaves one line that sums up. */
  stop(): void {
    if (!this.#running) return;
    this.#running = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#options.live) {
      this.#options.out.off('resize', this.#schedule);
      process.off('exit', this.#leave);
      this.#leave();
    }
    const { requests, errors } = this.#state.totals;
    this.#options.out.write(`culvert: stopped after ${requests} requests, ${errors} failed\n`);
  }

  readonly #leave = (): void => {
    this.#options.out.write(LEAVE_SCREEN);
  };

  readonly #schedule = (): void => {
    if (!this.#running || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      // A terminal that does not keep up gets the next picture later; pictures are never queued.
      if (this.#options.out.writableNeedDrain) this.#schedule();
      else this.#paint();
    }, REPAINT_MS);
    this.#timer.unref();
  };

  #paint(): void {
    const { out, color } = this.#options;
    const picture = renderHttpView(this.#state, { columns: out.columns ?? 80, rows: out.rows ?? 24, color });
    // Home, each line cleared behind its text, the rest of the screen cleared: without a flash of emptiness.
    out.write(`\x1b[H${picture.replaceAll('\n', '\x1b[K\n')}\x1b[K\x1b[J`);
  }

  #line(text: string, time = Date.now()): void {
    const { out } = this.#options;
    if (out.writableNeedDrain) {
      this.#unwritten++;
      return;
    }
    if (this.#unwritten > 0) out.write(`${this.#unwritten} lines left out: the reader is too slow\n`);
    this.#unwritten = 0;
    out.write(`${new Date(time).toISOString()} ${printable(text)}\n`);
  }
}

interface Piece {
  readonly text: string;
  /** SGR parameter (ECMA-48 section 8.3.117), or undefined for none. */
  readonly sgr: number | undefined;
}
type Line = readonly Piece[];
type Paint = (text: string) => Piece;

function plain(text: string): Piece {
  return { text, sgr: undefined };
}

function painter(color: boolean): Record<'bold' | 'dim' | 'red' | 'green' | 'yellow', Paint> {
  const paint =
    (sgr: number): Paint =>
    (text) => ({ text, sgr: color ? sgr : undefined });
  return { bold: paint(1), dim: paint(2), red: paint(31), green: paint(32), yellow: paint(33) };
}

/** Cuts by visible characters, before the escape sequences are added. */
function fit(line: Line, columns: number): string {
  let left = columns;
  let text = '';
  for (const piece of line) {
    const cut = shorten(printable(piece.text), left);
    left -= cut.length;
    text += piece.sgr === undefined || cut === '' ? cut : `\x1b[${piece.sgr}m${cut}\x1b[0m`;
  }
  return text.trimEnd();
}

function shorten(text: string, width: number): string {
  if (text.length <= width) return text;
  return width <= 3 ? text.slice(0, Math.max(0, width)) : `${text.slice(0, width - 3)}...`;
}

function label(text: string): string {
  return text.padEnd(14);
}

function clock(time: number): string {
  return new Date(time).toTimeString().slice(0, 8);
}

function formatMs(ms: number): string {
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function isFailure(status: number | string): boolean {
  return typeof status === 'string' || status >= 500;
}
