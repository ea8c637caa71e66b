// The queue, which sends one request at a time and retries it until it succeeds.

import assert from 'node:assert/strict';
import test from 'node:test';
import { ConnectionLost, Queue, SignedOut, backOff } from './assets.mjs';

/** A timer with a manual clock. */
class Timer {
    now = 0;
    all = new Map();
    next = 1;
    setTimeout = (act, ms) => {
        this.all.set(this.next, { act, at: this.now + ms });
        return this.next++;
    };
    clearTimeout = (id) => this.all.delete(id);
    async pass(ms) {
        this.now += ms;
        for (const [id, { act, at }] of [...this.all]) {
            if (at > this.now) continue;
            this.all.delete(id);
            act();
        }
        await settle();
    }
}
const settle = () => new Promise((resolve) => setImmediate(resolve));

test('tasks run one at a time, in order', async () => {
    const queue = new Queue();
    const log = [];
    let release;
    const first = queue.push(() => new Promise((resolve) => { log.push('a'); release = resolve; }));
    const second = queue.push(async () => { log.push('b'); return 2; });
    await settle();
    assert.deepEqual(log, ['a']);
    assert.equal(queue.idle, false);
    release(1);
    assert.deepEqual(await Promise.all([first, second]), [1, 2]);
    assert.deepEqual(log, ['a', 'b']);
    await settle();
    assert.ok(queue.idle);
});

test('a waiting task is not added twice under the same name', async () => {
    const queue = new Queue();
    let runs = 0;
    let release;
    queue.push(() => new Promise((resolve) => { release = resolve; }), 'save');
    const more = [1, 2, 3].map(() => queue.push(async () => { runs += 1; }, 'save'));
    await settle();
    release();
    await Promise.all(more);
    assert.equal(runs, 1);
});

test('a lost request is retried with increasing delays until it succeeds', async () => {
    const timer = new Timer();
    const states = [];
    const queue = new Queue({ timer, onChange: () => states.push(queue.trouble) });
    const attempts = [];
    const done = queue.push(async (nth) => {
        attempts.push(nth);
        if (nth < 3) throw new ConnectionLost();
        return 'success';
    });
    await settle();
    assert.deepEqual(attempts, [0]);
    assert.equal(queue.trouble, 'lost');
    await timer.pass(999);
    assert.deepEqual(attempts, [0]);
    await timer.pass(1);
    assert.deepEqual(attempts, [0, 1]);
    await timer.pass(2_000);
    assert.deepEqual(attempts, [0, 1, 2]);
    queue.wake();
    assert.equal(await done, 'success');
    assert.equal(queue.trouble, null);
    assert.deepEqual(states.filter((state, index) => state !== states[index - 1]), [null, 'lost', null]);
});

test('an expired session waits for the sign-in', async () => {
    const timer = new Timer();
    const queue = new Queue({ timer });
    let signedIn = false;
    const done = queue.push(async () => { if (!signedIn) throw new SignedOut(); });
    await settle();
    assert.equal(queue.trouble, 'signed-out');
    await timer.pass(15_000);
    assert.equal(queue.trouble, 'signed-out');
    signedIn = true;
    queue.wake();
    await done;
    assert.equal(queue.trouble, null);
});

test('an error ends only its own task', async () => {
    const queue = new Queue();
    const bad = queue.push(async () => { throw new Error('no'); });
    const good = queue.push(async () => 'yes');
    await assert.rejects(bad, /no/);
    assert.equal(await good, 'yes');
});

test('delays grow to 30 seconds and respect Retry-After', () => {
    assert.deepEqual([1, 2, 3, 6, 50].map((failures) => backOff(failures)), [1_000, 2_000, 4_000, 30_000, 30_000]);
    assert.equal(backOff(1, 7_000), 7_000);
});
