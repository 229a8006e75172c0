import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ByteBudget } from '../../../shared/protocol/budget.ts';
import { RecordingSink, sessionPair } from '../../../shared/testkit/session-pair.ts';
import { SentBody } from './sent-body.ts';

describe('the body that was sent', () => {
  test('is sent again with its end, as it was', async (t) => {
    const pair = await sessionPair();
    t.after(() => pair.close());
    const body = new SentBody(new ByteBudget(1_000_000));
    body.add(Buffer.from('one '));
    body.add(Buffer.from('two'));
    body.ended(['X-Sum', '7']);
    const { stream } = pair.open({ method: 'POST' }, undefined, false);
    assert.equal(body.sendTo(stream), true);
    const far = await pair.acceptedAt(0);
    assert.ok(far.sink instanceof RecordingSink);
    await far.sink.until(() => far.sink.trailers !== undefined);
    assert.equal(far.sink.body.toString(), 'one two');
    assert.deepEqual(far.sink.trailers, ['X-Sum', '7']);
  });

  test('is kept up to 64 KiB and within the budget of the process, and counts against it until it is dropped', () => {
    const budget = new ByteBudget(100_000);
    const body = new SentBody(budget);
    body.add(Buffer.alloc(65_536));
    assert.equal(body.isWhole, true);
    assert.equal(budget.used, 65_536);
    const other = new SentBody(budget);
    other.add(Buffer.alloc(40_000));
    assert.equal(other.isWhole, false);
    body.add(Buffer.alloc(1));
    assert.equal(body.isWhole, false);
    assert.equal(budget.used, 0);
    body.drop();
    assert.equal(budget.used, 0);
  });
});
