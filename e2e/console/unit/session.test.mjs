// An editing session with concurrent users and an unreliable server.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Session, isConflict } from './assets.mjs';
import { Server } from './server.mjs';

class Memory {
    map = new Map();
    get length() { return this.map.size; }
    key(index) { return [...this.map.keys()][index] ?? null; }
    getItem(key) { return this.map.get(key) ?? null; }
    setItem(key, value) { this.map.set(key, String(value)); }
    removeItem(key) { this.map.delete(key); }
}

/** Delays pass immediately; nothing is saved automatically. */
const timer = {
    setTimeout: (act, ms) => (ms >= 1_000 ? setImmediate(act) : null),
    clearTimeout: () => {},
};

async function begin(titles = ['A', 'B', 'C'], storage = new Memory(), server = new Server(titles)) {
    let keys = 0;
    const session = new Session({
        id: 'wt_1', api: server.api, storage, who: 'anna@example.com', timer, key: () => `key-${Math.random()}-${keys += 1}`,
    });
    const messages = [];
    session.on((kind, detail) => ['notice', 'problem'].includes(kind) && messages.push(detail.text ?? detail));
    await session.load();
    const own = (title) => session.model.steps.find((step) => step.fields.title.text === title);
    const titlesHere = () => session.steps.map((step) => step.fields.title.text);
    return { server, session, storage, messages, own, titles: titlesHere };
}

/** Makes the next request of a method fail once. */
function once(server, when, method, fail) {
    server[when] = (own) => {
        if (own !== method) return;
        server[when] = () => {};
        fail();
    };
}
const lost = () => { throw new TypeError('fetch failed'); };

test('typed text is saved with the revision that was read', async () => {
    const { server, session, own } = await begin();
    session.edit(own('A'), 'content', 'New');
    session.edit(session.model.head, 'title', 'Better');
    assert.equal(session.state, 'saving');
    await session.flush();
    assert.deepEqual([server.step('A').content, server.head.title, session.state], ['New', 'Better', 'saved']);
    assert.ok(session.savedAt);
    await session.flush();
    assert.equal(server.log.filter((line) => line.startsWith('PATCH')).length, 2, 'nothing to save, nothing sent');
});

test('concurrent changes of other steps do not prevent saving', async () => {
    const { server, session, own, titles } = await begin();
    server.change(() => { server.step('B').content = 'Theirs'; server.steps.push(server.make({ title: 'D' })); });
    session.edit(own('A'), 'content', 'Mine');
    await session.flush();
    assert.deepEqual([server.step('A').content, server.step('B').content], ['Mine', 'Theirs']);
    assert.deepEqual([titles(), own('B').fields.content.text, session.state], [['A', 'B', 'C', 'D'], 'Theirs', 'saved']);
});

test('concurrent changes of the same text: nothing is overwritten until the user resolves the conflict', async () => {
    const { server, session, own } = await begin();
    server.change(() => { server.step('A').content = 'Theirs'; });
    session.edit(own('A'), 'content', 'Mine');
    session.edit(own('A'), 'context_for_agent', 'Also mine');
    await session.flush();
    assert.ok(isConflict(own('A').fields.content));
    assert.deepEqual([server.step('A').content, server.step('A').context_for_agent], ['Theirs', 'Also mine']);
    assert.equal(session.state, 'conflict');
    session.resolve(own('A'), 'content', 'Both');
    await session.flush();
    assert.deepEqual([server.step('A').content, session.state], ['Both', 'saved']);
});

test('a lost request is retried; a lost response is not a conflict', async () => {
    for (const when of ['before', 'after']) {
        const { server, session, own } = await begin();
        once(server, when, 'PATCH', lost);
        session.edit(own('A'), 'content', 'Mine');
        await session.flush();
        assert.deepEqual([server.step('A').content, session.state, session.isUnsaved], ['Mine', 'saved', false], when);
    }
});

test('actions whose response is lost are performed once', async () => {
    const acts = {
        add: [(session) => session.add('ws_1', ''), 'A,New step,B,C'],
        duplicate: [(session) => session.duplicate('ws_2'), 'A,B,B (copy),C'],
        move: [(session) => session.move('ws_3', null), 'C,A,B'],
        remove: [(session) => session.remove('ws_2'), 'A,C'],
    };
    for (const [name, [act, expected]] of Object.entries(acts)) {
        const { server, session, titles } = await begin();
        once(server, 'after', name === 'remove' ? 'DELETE' : 'POST', lost);
        await act(session);
        await session.poll();
        assert.deepEqual([server.titles().join(), titles().join(), session.state], [expected, expected, 'saved'], name);
    }
});

test('actions are merged with concurrent changes', async () => {
    const { server, session, titles } = await begin();
    server.change(() => { server.steps.unshift(server.make({ title: 'X' })); });
    await session.add('ws_1', '');
    assert.deepEqual([server.titles(), titles()], [['X', 'A', 'New step', 'B', 'C'], ['X', 'A', 'New step', 'B', 'C']]);
    server.change(() => { server.steps.pop(); });
    await session.move('ws_1', null);
    assert.deepEqual([server.titles(), titles()], [['A', 'X', 'New step', 'B'], ['A', 'X', 'New step', 'B']]);
});

test('an order that was read before a move does not undo it', async () => {
    const { server, session, titles } = await begin();
    server.change(() => { server.step('B').content = 'Theirs'; });
    let moved;
    server.after = () => {
        server.after = () => {};
        moved = session.move('ws_3', null);
    };
    await session.poll();
    assert.deepEqual(titles(), ['C', 'A', 'B']);
    await moved;
    assert.deepEqual([server.titles(), titles()], [['C', 'A', 'B'], ['C', 'A', 'B']]);
});

test('a deleted step is restored with its ID, position and text', async () => {
    const { server, session, own, titles } = await begin();
    session.edit(own('B'), 'content', 'Not saved yet');
    const removed = await session.remove('ws_2');
    assert.deepEqual([server.titles(), titles(), session.isUnsaved], [['A', 'C'], ['A', 'C'], false]);
    await session.restoreStep(removed);
    assert.deepEqual([server.titles(), titles()], [['A', 'B', 'C'], ['A', 'B', 'C']]);
    assert.deepEqual([server.steps[1].id, server.steps[1].content], ['ws_2', 'Not saved yet']);
    const first = await session.remove('ws_1');
    await session.restoreStep(first);
    assert.deepEqual([server.titles(), titles()], [['A', 'B', 'C'], ['A', 'B', 'C']]);
});

test('a step that another user has just changed is not deleted', async () => {
    const { server, session, messages, titles, own } = await begin();
    server.change(() => { server.step('B').content = 'Theirs'; });
    assert.equal(await session.remove('ws_2'), null);
    assert.deepEqual([server.titles(), titles(), own('B').fields.content.text], [['A', 'B', 'C'], ['A', 'B', 'C'], 'Theirs']);
    assert.match(messages[0], /changed “B”, so it was not deleted/);
    server.change(() => { server.step('A').content = 'Theirs'; });
    assert.ok(await session.remove('ws_2'), 'changes of other steps do not matter');
});

test('a step deleted by another user is restored with the unsaved text, or discarded', async () => {
    const { server, session, own } = await begin();
    const gone = (title) => server.change(() => {
        server.removed.add(server.step(title).id);
        server.steps = server.steps.filter((step) => step.title !== title);
    });
    gone('B');
    session.edit(own('B'), 'content', 'Mine');
    await session.flush();
    assert.deepEqual([session.state, own('B').gone], ['conflict', true]);
    await session.restoreStep({ step: { id: 'ws_2', title: 'B', content: 'Mine' }, after: 'ws_1' });
    assert.deepEqual([server.titles(), server.step('B').content, session.state], [['A', 'B', 'C'], 'Mine', 'saved']);
    gone('C');
    session.edit(own('C'), 'content', 'Mine');
    await session.flush();
    session.discardDeleted('ws_3');
    assert.deepEqual([session.state, session.isUnsaved, session.storage?.length], ['saved', false, undefined]);
});

test('a rejected change shows the reason and does not block other changes', async () => {
    const { server, session, own } = await begin();
    session.edit(own('A'), 'title', '');
    session.edit(own('B'), 'content', 'Mine');
    await session.flush();
    const step = session.step('ws_1');
    assert.equal(step.fields.title.refused.message, 'Write a title.');
    assert.deepEqual([server.step('B').content, session.state], ['Mine', 'refused']);
    session.edit(step, 'title', 'A2');
    await session.flush();
    assert.deepEqual([server.titles(), session.state], [['A2', 'B', 'C'], 'saved']);
});

test('unsaved text survives a reload, even if the step has been deleted', async () => {
    const { server, session, storage, own } = await begin();
    server.before = lost;
    session.edit(own('A'), 'content', 'Mine');
    session.edit(own('B'), 'content', 'Mine too');
    session.suspend();
    const kept = [...storage.map.keys()].filter((key) => key.startsWith('waypost.text'));
    assert.equal(kept.length, 2);
    server.before = () => {};
    server.change(() => { server.steps = server.steps.filter((step) => step.title !== 'B'); });
    const again = await begin([], storage, server);
    assert.match(again.messages[0], /restored: “A”, “B”/);
    assert.equal(again.session.state, 'conflict');
    await again.session.flush();
    assert.equal(server.step('A').content, 'Mine');
    assert.equal(again.own('B').fields.content.text, 'Mine too');
});

test('an expired session keeps the text and continues after the sign-in', async () => {
    const { server, session, own } = await begin();
    const { answer } = server;
    server.answer = () => ({ status: 401, body: {} });
    session.edit(own('A'), 'content', 'Mine');
    const saving = session.flush();
    await new Promise((resolve) => setImmediate(resolve));
    assert.ok(['signed-out', 'saving'].includes(session.state), session.state);
    server.answer = answer;
    session.resume();
    await saving;
    assert.deepEqual([server.step('A').content, session.state], ['Mine', 'saved']);
});

test('polling an unchanged draft returns 304', async () => {
    const { server, session, own } = await begin();
    let read = 0;
    const { answer } = server;
    server.answer = (...all) => {
        const response = answer.apply(server, all);
        if (response.status === 200 && all[0] === 'GET') read += 1;
        return response;
    };
    await session.poll();
    await session.poll();
    assert.equal(read, 0);
    server.change(() => {});
    await session.poll();
    assert.equal(read, 1);
    // The user's own changes are known.
    session.edit(own('A'), 'content', 'Mine');
    await session.flush();
    await session.add(own('A').id);
    await session.move(own('B').id, null);
    await session.poll();
    assert.equal(read, 1);
    assert.equal(session.state, 'saved');
});

test('a deleted walkthrough is reported', async () => {
    const { server, session } = await begin();
    server.answer = () => ({ status: 404, body: {} });
    session.etag = null;
    await session.poll();
    assert.equal(session.state, 'deleted');
});
