import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { answer, field, get, noVisitors, Recorder, startListener, visit } from './edge-testing.ts';
import type { VisitorExchange } from './exchange.ts';

const CHUNKED_POST = 'POST / HTTP/1.1\r\nHost: api.culvert.test\r\nTransfer-Encoding: chunked\r\n\r\n';

function post(length: number, fields = ''): string {
  return `POST / HTTP/1.1\r\nHost: api.culvert.test\r\nContent-Length: ${length}\r\n${fields}\r\n`;
}

/** Splits off the body of the first response. */
function bodyOf(received: string): string {
  return received.slice(received.indexOf('\r\n\r\n') + 4);
}

describe('HTTP/1 requests', () => {
  test('on one connection are answered one after the other, and the connection is kept', async (t) => {
    const listener = await startListener(t, (exchange) => answer(exchange, `<${exchange.target}>`));
    const visitor = visit(t, listener, get('/1'));
    await visitor.until('</1>');
    visitor.send(get('/2'));
    await visitor.until('</2>');
    assert.equal(listener.visitors, 1);
  });

  test('of a long pipeline wait for those before them, and all are answered in order', async (t) => {
    const held: VisitorExchange[] = [];
    let most = 0;
    const listener = await startListener(t, (exchange) => {
      held.push(exchange);
      most = Math.max(most, held.length);
      setImmediate(() => answer(held.shift() ?? exchange, `<${exchange.target}>`));
    });
    const pipeline = Array.from({ length: 500 }, (_, i) => get(`/${i}`)).join('');
    const received = await visit(t, listener, pipeline).until('</499>');
    const targets = [...received.matchAll(/<\/(\d+)>/g)].map((match) => Number(match[1]));
    assert.deepEqual(
      targets,
      Array.from({ length: 500 }, (_, i) => i),
    );
    assert.ok(most <= 65, `${most} were in progress at once`);
  });

  test('that are pipelined are answered in order even when the later one is ready first', async (t) => {
    const held: VisitorExchange[] = [];
    const listener = await startListener(t, (exchange) => {
      held.push(exchange);
      if (held.length < 3) return;
      for (const each of held.toReversed()) answer(each, `<${each.target}>`);
    });
    const received = await visit(t, listener, get('/a') + get('/b') + get('/c')).until('</c>');
    assert.match(received, /<\/a>[\s\S]*<\/b>[\s\S]*<\/c>/);
  });

  test('carry what the proxy needs to know', async (t) => {
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange));
    visit(
      t,
      listener,
      `PUT /p?q=1 HTTP/1.1\r\nHost: API.culvert.test:80\r\nAccept: text/html\r\nContent-Length: 7\r\n\r\n`,
    );
    const exchange = await seen.promise;
    const { method, target, host, tunnelName, accept, remoteAddress, protocol, isUpgrade, hasBody, contentLength } =
      exchange;
    assert.deepEqual(
      { method, target, host, tunnelName, accept, remoteAddress, protocol, isUpgrade, hasBody, contentLength },
      {
        method: 'PUT',
        target: '/p?q=1',
        host: 'API.culvert.test:80',
        tunnelName: 'api',
        accept: 'text/html',
        remoteAddress: '127.0.0.1',
        protocol: 'http/1.1',
        isUpgrade: false,
        hasBody: true,
        contentLength: 7,
      },
    );
    assert.deepEqual(field(exchange.headers, 'x-request-id'), [exchange.requestId]);
    assert.deepEqual(field(exchange.headers, 'x-forwarded-for'), ['127.0.0.1']);
  });

  test('in absolute form use the host of the target', async (t) => {
    const targets: string[] = [];
    const listener = await startListener(t, (exchange) => {
      targets.push(`${exchange.target} ${exchange.host} ${exchange.tunnelName} ${field(exchange.headers, 'host')}`);
      answer(exchange, 'ok');
    });
    const from = (line: string): string => `${line} HTTP/1.1\r\nHost: other.culvert.test\r\n\r\n`;
    const visitor = visit(
      t,
      listener,
      from('GET http://api.culvert.test/p?q') +
        from('GET http://api.culvert.test?q') +
        from('OPTIONS http://api.culvert.test'),
    );
    visitor.send(from('OPTIONS *'));
    await visitor.until(/(ok[\s\S]*){4}/);
    const host = 'api.culvert.test api api.culvert.test';
    assert.deepEqual(targets, [
      `/p?q ${host}`,
      `/?q ${host}`,
      `* ${host}`,
      '* other.culvert.test other other.culvert.test',
    ]);
  });

  test('of more than 100 fields arrive whole', async (t) => {
    const listener = await startListener(t, (exchange) =>
      answer(exchange, `n=${field(exchange.headers, 'x-n').length}.`),
    );
    await visit(t, listener, get('/', 'X-N: 1\r\n'.repeat(3_000))).until('n=3000.');
  });

  test('stream their body and trailers, held back until start', async (t) => {
    const recorder = new Recorder();
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange));
    const visitor = visit(t, listener, `${CHUNKED_POST}3\r\nabc\r\n`);
    const exchange = await seen.promise;
    exchange.start(recorder);
    visitor.send('2\r\nde\r\n0\r\nX-Sum: 5\r\nAuthorization: no\r\n\r\n');
    await recorder.ended;
    assert.equal(recorder.body, 'abcde');
    assert.deepEqual(recorder.trailers, ['X-Sum', '5']);
    answer(exchange, 'done');
    await visitor.until('done');
  });

  test('push back on the visitor while paused', async (t) => {
    const recorder = new Recorder();
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.pause();
      seen.resolve(exchange);
    });
    const size = 24 * 1024 * 1024;
    const visitor = visit(t, listener, post(size));
    let full = true;
    while (full && visitor.socket.bytesWritten < size)
      full = visitor.socket.write(Buffer.alloc(64 * 1024)) || visitor.socket.writableLength < 8 * 1024 * 1024;
    const exchange = await seen.promise;
    assert.equal(recorder.body.length, 0);
    assert.ok(visitor.socket.writableLength > 0, 'the visitor has to wait');
    exchange.resume();
    await once(visitor.socket, 'drain');
    visitor.socket.write(Buffer.alloc(size - (visitor.socket.bytesWritten - post(size).length)));
    await recorder.ended;
    assert.equal(recorder.body.length, size);
  });
});

describe('HTTP/1 responses', () => {
  test('are chunked when their length is unknown, with trailers', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'Fine', ['X-A', '1', 'Trailer', 'X-Sum'], undefined, false);
      exchange.write(Buffer.from('hello'));
      exchange.trailers(['X-Sum', '5', 'Content-Length', '5']);
    });
    const received = await visit(t, listener, get()).until('0\r\nX-Sum: 5\r\n\r\n');
    assert.match(received, /^HTTP\/1\.1 200 Fine\r\nX-A: 1\r\nTrailer: X-Sum\r\n[\s\S]*5\r\nhello\r\n0\r\n/);
    assert.match(received, /Transfer-Encoding: chunked/);
  });

  test('send the head at once when the body takes its time', async (t) => {
    const listener = await startListener(t, (exchange) =>
      exchange.respond(200, 'OK', ['Content-Type', 'text/event-stream'], undefined, false),
    );
    await visit(t, listener, get()).until('text/event-stream');
  });

  test('keep case, order, duplicates and Latin-1 bytes', async (t) => {
    const headers = [
      'X-b',
      '1',
      'Content-Length',
      '2',
      'x-B',
      '2',
      'Set-Cookie',
      'a',
      'SET-cookie',
      'b',
      'X-L',
      'caf\xe9',
    ];
    const listener = await startListener(t, (exchange) =>
      exchange.respond(200, 'OK', headers, Buffer.from('ok'), true),
    );
    const received = await visit(t, listener, get()).until('\r\n\r\nok');
    assert.match(
      received,
      /X-b: 1\r\nContent-Length: 2\r\nx-B: 2\r\nSet-Cookie: a\r\nSET-cookie: b\r\nX-L: caf\xe9\r\n/,
    );
  });

  test('keep a file name in Content-Disposition byte for byte', async (t) => {
    const name = Buffer.from('filename="Ü.txt"').toString('latin1');
    const listener = await startListener(t, (exchange) =>
      exchange.respond(200, 'OK', ['Content-Length', '2', 'Content-Disposition', name], Buffer.from('ok'), true),
    );
    const received = await visit(t, listener, get()).until('\r\n\r\nok');
    assert.ok(received.includes(`Content-Disposition: ${name}\r\n`));
    assert.match(received, /Content-Length: 2\r\n/);
  });

  test('to HEAD, 204 and 304 have no body, and the connection goes on', async (t) => {
    const listener = await startListener(t, (exchange) => {
      const status = exchange.method === 'HEAD' ? 200 : Number(exchange.target.slice(1));
      exchange.respond(status, 'X', ['Content-Length', '5', 'Trailer', 'X-T'], Buffer.from('hel'), false);
      exchange.write(Buffer.from('lo'));
      exchange.end();
    });
    const visitor = visit(
      t,
      listener,
      `HEAD / HTTP/1.1\r\nHost: api.culvert.test\r\n\r\n${get('/204')}${get('/304')}${get('/200')}`,
    );
    const received = await visitor.until('hello');
    const parts = received.split('HTTP/1.1 ').slice(1);
    assert.equal(parts.length, 4);
    assert.deepEqual(
      parts.map((part) => bodyOf(part)),
      ['', '', '', 'hello'],
    );
    assert.deepEqual(
      parts.map((part) => part.includes('Content-Length: 5')),
      [true, false, true, true],
    );
  });

  test('with more bytes than their Content-Length are cut, so that nothing passes for a second response', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(
        200,
        'OK',
        ['Content-Length', '2'],
        Buffer.from('okHTTP/1.1 200 smuggled'),
        exchange.target === '/1',
      );
      exchange.write(Buffer.from('more'));
      exchange.end();
    });
    const visitor = visit(t, listener, get('/1') + get('/2'));
    const received = await visitor.until(/(ok[\s\S]*){2}/);
    assert.doesNotMatch(received, /smuggled|more/);
  });

  test('with fewer bytes than their Content-Length end in a broken connection', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', ['Content-Length', '9'], Buffer.from('ok'), false);
      exchange.end();
    });
    const visitor = visit(t, listener, get());
    assert.match(await visitor.untilEnd(), /\r\n\r\nok$/);
  });

  test('that are not valid HTTP become 502 bad_response', async (t) => {
    const cases: [number, string, string[]][] = [
      [200, 'OK', ['Content-Length', '1', 'Content-Length', '2']],
      [200, 'OK', ['X-A', 'a\nb']],
      [200, 'OK', ['X A', 'b']],
      [200, 'a\nb', []],
      [101, 'Switching', []],
    ];
    let results: boolean[] = [];
    const listener = await startListener(t, (exchange) => {
      const [status, reason, headers] = cases[Number(exchange.target.slice(1))] ?? [200, '', []];
      results.push(exchange.respond(status, reason, headers, Buffer.from('x'), true));
    });
    for (const i of cases.keys()) {
      results = [];
      const received = await visit(t, listener, get(`/${i}`)).until(/request id/);
      assert.match(received, /^HTTP\/1\.1 502 Bad Gateway\r\n[\s\S]*X-Culvert-Error: bad_response/);
      assert.deepEqual(results, [false]);
    }
  });

  test('report backpressure, and the drain', async (t) => {
    const recorder = new Recorder();
    const wrote = Promise.withResolvers<number>();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      exchange.respond(200, 'OK', [], undefined, false);
      let chunks = 1;
      while (exchange.write(Buffer.alloc(32 * 1024 * 1024))) chunks += 1;
      wrote.resolve(chunks);
    });
    const visitor = visit(t, listener, get());
    visitor.socket.pause();
    assert.ok((await wrote.promise) > 0);
    assert.equal(recorder.drains, 0);
    visitor.socket.resume();
    while (recorder.drains === 0) await once(visitor.socket, 'data');
  });

  test('report that they are written out', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      exchange.start(recorder);
      answer(exchange, 'ok');
    });
    await visit(t, listener, get()).until('ok');
    await recorder.finished;
    assert.equal(recorder.aborts, 0);
  });

  test('by a handler that throws are internal_error', async (t) => {
    const listener = await startListener(t, () => {
      throw new Error('broken');
    });
    const received = await visit(t, listener, get()).until('request id');
    assert.match(received, /^HTTP\/1\.1 500 [\s\S]*X-Culvert-Error: internal_error/);
    assert.doesNotMatch(received, /broken/);
  });
});

describe('interim responses', () => {
  test('100 and 103 come before the final one', async (t) => {
    const recorder = new Recorder();
    const listener = await startListener(t, (exchange) => {
      assert.deepEqual(field(exchange.headers, 'expect'), ['100-continue']);
      exchange.start(recorder);
      exchange.informational(103, ['Link', '</a>', 'Link', '</b>', 'Connection', 'close']);
      exchange.informational(100, []);
      void recorder.ended.then(() => answer(exchange, recorder.body));
    });
    const visitor = visit(t, listener, post(4, 'Expect: 100-continue\r\n'));
    const interim = await visitor.until('HTTP/1.1 100 Continue\r\n\r\n');
    assert.equal(interim, 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n');
    visitor.send('body');
    const received = await visitor.until('\r\n\r\nbody');
    assert.match(received, /Connection: keep-alive/);
  });

  test('are not sent to HTTP/1.0, which gets Content-Length or the end of the connection', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.informational(103, ['Link', '</a>']);
      exchange.informational(100, []);
      exchange.respond(200, 'OK', ['Trailer', 'X-T'], undefined, false);
      exchange.write(Buffer.from('text'));
      exchange.trailers(['X-T', '1']);
    });
    const received = await visit(t, listener, 'GET / HTTP/1.0\r\n\r\n').untilEnd();
    assert.match(received, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(received, /Connection: close\r\n/);
    assert.doesNotMatch(received, /103|100 Continue|chunked|Trailer/);
    assert.equal(bodyOf(received), 'text');
  });

  test('a final answer instead of 100 closes the connection without waiting for the body', async (t) => {
    const listener = await startListener(t, (exchange) => exchange.fail('body_too_large'));
    const visitor = visit(t, listener, post(1_000_000_000, 'Expect: 100-continue\r\n'));
    const received = await visitor.untilEnd();
    assert.match(received, /^HTTP\/1\.1 413 [\s\S]*Connection: close/);
  });
});

describe('a request body that nobody wants', () => {
  test('is read to its end when that is near, and the connection is kept', async (t) => {
    const listener = await startListener(t, (exchange) =>
      exchange.method === 'POST' ? exchange.fail('tunnel_not_found') : answer(exchange, 'next'),
    );
    const visitor = visit(t, listener, `${post(100_000)}${'x'.repeat(1_000)}`);
    await visitor.until('tunnel_not_found');
    visitor.send('x'.repeat(99_000) + get());
    await visitor.until('next');
  });

  test('is not read for ever', async (t) => {
    const listener = await startListener(t, (exchange) => exchange.fail('tunnel_not_found'));
    const visitor = visit(t, listener, post(100_000_000_000));
    await visitor.until('tunnel_not_found');
    const chunk = Buffer.alloc(64 * 1024);
    const pump = (): void => {
      while (!visitor.socket.destroyed && visitor.socket.write(chunk));
    };
    visitor.socket.on('drain', pump);
    pump();
    await visitor.closed;
    await noVisitors(listener);
  });
});

describe('aborts', () => {
  test('of the visitor are reported once, also while a body is on its way', async (t) => {
    for (const text of [get(), `${post(100)}abc`, CHUNKED_POST]) {
      const recorder = new Recorder();
      const seen = Promise.withResolvers<VisitorExchange>();
      const listener = await startListener(t, (exchange) => {
        exchange.start(recorder);
        seen.resolve(exchange);
      });
      const visitor = visit(t, listener, text);
      const exchange = await seen.promise;
      visitor.socket.destroy();
      await recorder.aborted;
      assert.equal(exchange.respond(200, 'OK', [], undefined, true), false);
      exchange.write(Buffer.from('x'));
      exchange.end();
      exchange.abort();
      exchange.fail('timeout');
      assert.equal(recorder.aborts, 1);
    }
  });

  test('of the visitor before start are reported after it', async (t) => {
    const recorder = new Recorder();
    const seen = Promise.withResolvers<VisitorExchange>();
    const listener = await startListener(t, (exchange) => seen.resolve(exchange));
    const visitor = visit(t, listener, get());
    const exchange = await seen.promise;
    visitor.socket.resetAndDestroy();
    await noVisitors(listener);
    exchange.start(recorder);
    assert.equal(recorder.aborts, 0);
    await recorder.aborted;
  });

  test('of the service leave a chunked body without its last chunk', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', [], Buffer.from('part'), false);
      setImmediate(() => exchange.fail('connection_closed'));
    });
    const visitor = visit(t, listener, get());
    assert.match(await visitor.untilEnd(), /4\r\npart\r\n$/);
  });

  test('of the service reset a connection whose end would pass for the end of the body', async (t) => {
    const listener = await startListener(t, (exchange) => {
      exchange.respond(200, 'OK', [], Buffer.from('part'), false);
      visitor.until('part').then(() => exchange.abort());
    });
    const visitor = visit(t, listener, 'GET / HTTP/1.0\r\n\r\n');
    await visitor.closed;
    assert.equal((visitor.error as NodeJS.ErrnoException | undefined)?.code, 'ECONNRESET');
  });
});
