import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { describe, test } from 'node:test';
import {
  HttpView,
  type HttpViewState,
  MAX_REQUESTS,
  printable,
  type RequestView,
  renderHttpView,
  type ViewOutput,
} from './http-view.ts';

const TIME = new Date(2026, 0, 2, 3, 4, 5).getTime();

function request(path: string, more: Partial<RequestView> = {}): RequestView {
  return { time: TIME, method: 'GET', path, status: 200, ms: 12.4, ...more };
}

const STATE: HttpViewState = {
  status: 'online',
  publicUrls: [
    { name: 'api', url: 'https://api.example.com', local: 'http://localhost:3000' },
    { name: 'web', url: 'https://web.example.com', local: 'http://localhost:4000' },
  ],
  sessions: [
    { slot: 0, state: 'online', rttMs: 8.6 },
    { slot: 1, state: 'waiting', rttMs: undefined },
  ],
  requests: [
    request('/first'),
    request('/second', { method: 'POST', status: 502, ms: 30_000 }),
    request('/third', { status: 'timeout' }),
  ],
  totals: { requests: 3, errors: 2, active: 1 },
};

describe('the picture', () => {
  test('shows status, URLs, sessions, counts and the requests, newest first', () => {
    assert.equal(
      renderHttpView(STATE, { columns: 64, rows: 24, color: false }),
      `culvert  Ctrl+C stops it

Status        online
Forwarding    https://api.example.com -> http://localhost:3000
              https://web.example.com -> http://localhost:4000
Sessions      0  online  9 ms round trip
              1  waiting
Requests      3 total, 2 failed, 1 active

03:04:05  GET      /third                      timeout     12 ms
03:04:05  POST     /second                         502    30.0 s
03:04:05  GET      /first                          200     12 ms`,
    );
  });

  for (const [columns, rows] of [
    [80, 24],
    [40, 12],
    [20, 5],
    [5, 2],
    [1, 1],
    [0, 0],
  ] as const) {
    test(`stays within ${columns} columns and ${rows} rows, however long the paths are`, () => {
      const requests = Array.from({ length: MAX_REQUESTS }, () => request(`/${'x'.repeat(5000)}`));
      const lines = renderHttpView({ ...STATE, requests }, { columns, rows, color: false }).split('\n');
      assert.ok(lines.length <= Math.max(rows, 1), `${lines.length} lines`);
      for (const line of lines) assert.ok(line.length <= columns, line);
    });
  }

  test('keeps status and duration in sight when a path is cut', () => {
    const picture = renderHttpView(
      { ...STATE, requests: [request(`/${'x'.repeat(500)}`)] },
      { columns: 60, rows: 24, color: false },
    );
    assert.match(picture, /\/x+\.\.\. {2}200 {5}12 ms$/);
  });

  test('colours nothing unless asked, and ends each colour that it begins', () => {
    assert.doesNotMatch(renderHttpView(STATE, { columns: 80, rows: 24, color: false }), /\p{Cc}\[/u);
    const coloured = renderHttpView(STATE, { columns: 80, rows: 24, color: true });
    const begun = coloured.split(/\p{Cc}\[[1-9]\d*m/u).length;
    assert.ok(begun > 5);
    assert.equal(coloured.split(/\p{Cc}\[0m/u).length, begun);
  });

  test('has the same text with colour as without', () => {
    const screen = { columns: 50, rows: 24 };
    const coloured = renderHttpView(STATE, { ...screen, color: true }).replace(/\p{Cc}\[\d+m/gu, '');
    assert.equal(coloured.replace(/ +$/gm, ''), renderHttpView(STATE, { ...screen, color: false }));
  });
});

describe('what visitors send', () => {
  const hostile = '/\x1b]0;owned\x07\x9b2J\r\n\u202e\u200b\x7f\0/é';

  test('reaches the terminal without control, direction or invisible characters', () => {
    assert.equal(printable(hostile), '/?]0;owned??2J??????/é');
    const requests = [request(hostile, { method: '\x1bc' })];
    const picture = renderHttpView({ ...STATE, requests }, { columns: 80, rows: 24, color: false });
    assert.doesNotMatch(picture.replaceAll('\n', ''), /[\p{C}]/u);
  });

  test('cannot forge a line of the plain log', () => {
    const out = new Output();
    const view = new HttpView({ out, live: false, color: false });
    view.start();
    view.request(request('/\n2026-01-01T00:00:00.000Z GET /forged 200 1 ms'));
    assert.equal(out.text.split('\n').length, 2);
    assert.match(out.text, /GET \/\?2026-01-01T/);
  });
});

class Output extends EventEmitter implements ViewOutput {
  columns = 80;
  rows = 24;
  writableNeedDrain = false;
  writes: string[] = [];

  get text(): string {
    return this.writes.join('');
  }

  write(text: string): boolean {
    this.writes.push(text);
    this.emit('written');
    return !this.writableNeedDrain;
  }
}

describe('the driver on a terminal', () => {
  test('paints in the alternate screen and gives the screen and the cursor back', () => {
    const out = new Output();
    const view = new HttpView({ out, live: true, color: false });
    view.start();
    assert.ok(out.text.startsWith('\x1b[?1049h\x1b[?25l\x1b[H'));
    view.stop();
    assert.ok(out.text.endsWith('\x1b[?25h\x1b[?1049lculvert: stopped after 0 requests, 0 failed\n'));
    assert.equal(out.listenerCount('resize'), 0);
    assert.equal(process.listenerCount('exit'), 0);
  });

  test('paints once for a burst of requests, and holds no more than it can show', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const out = new Output();
    const view = new HttpView({ out, live: true, color: false });
    view.start();
    const before = out.writes.length;
    for (let i = 0; i < 5000; i++) view.request(request(`/${i}`, { status: i % 2 === 0 ? 200 : 500 }));
    assert.equal(out.writes.length, before);
    context.mock.timers.tick(100);
    assert.equal(out.writes.length, before + 1);
    assert.match(out.text, /5000 total, 2500 failed, 0 active/);
    assert.match(out.text, /\/4999/);
    view.stop();
  });

  test('paints nothing while the terminal does not keep up, and the newest state afterwards', (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const out = new Output();
    const view = new HttpView({ out, live: true, color: false });
    view.start();
    out.writableNeedDrain = true;
    view.update({ status: 'online' });
    const before = out.writes.length;
    context.mock.timers.tick(100);
    assert.equal(out.writes.length, before);
    out.writableNeedDrain = false;
    view.update({ status: 'reconnecting' });
    context.mock.timers.tick(100);
    assert.match(String(out.writes.at(-1)), /reconnecting/);
    view.stop();
  });

  test('follows the size of the terminal', async () => {
    const out = new Output();
    const view = new HttpView({ out, live: true, color: false });
    view.start();
    view.update({ publicUrls: STATE.publicUrls });
    out.columns = 30;
    out.emit('resize');
    // The repaint's own timer keeps no process alive, so this one does meanwhile.
    const alive = setInterval(() => {}, 1000);
    await once(out, 'written');
    clearInterval(alive);
    for (const line of String(out.writes.at(-1)).split('\n')) {
      assert.ok(line.replace(/\p{Cc}\[[?\d]*[A-Za-z]/gu, '').length <= 30, line);
    }
    view.stop();
  });
});

describe('the driver on a pipe', () => {
  test('writes a line for each change of status, each URL once, and each request', () => {
    const out = new Output();
    const view = new HttpView({ out, live: false, color: false });
    view.start();
    view.update({ status: 'online', publicUrls: STATE.publicUrls.slice(0, 1) });
    view.update({ publicUrls: STATE.publicUrls });
    view.update({ totals: STATE.totals });
    view.request(request('/x', { status: 'timeout' }));
    view.stop();
    assert.deepEqual(out.text.replace(/^\d{4}-\d\d-\d\dT\S+Z /gm, '').split('\n'), [
      'status online',
      'forwarding https://api.example.com -> http://localhost:3000',
      'forwarding https://web.example.com -> http://localhost:4000',
      'GET /x timeout 12 ms',
      'culvert: stopped after 4 requests, 3 failed',
      '',
    ]);
  });

  test('leaves lines out while the reader is too slow, and says how many', () => {
    const out = new Output();
    const view = new HttpView({ out, live: false, color: false });
    view.start();
    out.writableNeedDrain = true;
    for (let i = 0; i < 7; i++) view.request(request('/lost'));
    out.writableNeedDrain = false;
    view.request(request('/kept'));
    assert.equal(out.writes.length, 2);
    assert.match(out.text, /^7 lines left out: the reader is too slow\n.* GET \/kept 200 12 ms\n$/);
    view.stop();
  });
});
