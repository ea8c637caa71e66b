// Undo and redo across reloads.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Undo, forgetUndo } from '../../../crates/console/assets/editor-undo.js';

class Storage {
    items = new Map();
    get length() { return this.items.size; }
    key(index) { return [...this.items.keys()][index] ?? null; }
    getItem(key) { return this.items.get(key) ?? null; }
    setItem(key, value) { this.items.set(key, value); }
    removeItem(key) { this.items.delete(key); }
}

function world() {
    const it = { now: 1_000_000, storage: new Storage(), texts: { 's1 content': '', 's1 title': 'A', 's2 content': 'x' } };
    it.open = (who = 'anna') => new Undo(it.storage, { who, walkthrough: 'w', now: () => it.now });
    it.text = (id, name) => it.texts[`${id} ${name}`];
    it.set = (id, name, text) => { it.texts[`${id} ${name}`] = text; };
    it.type = (undo, id, name, text, wait = 5_000) => {
        it.now += wait;
        undo.record(id, name, it.text(id, name), text);
        it.set(id, name, text);
    };
    return it;
}

test('changes are undone and redone, also after a reload', () => {
    const it = world();
    const undo = it.open();
    it.type(undo, 's1', 'content', 'one');
    it.type(undo, 's1', 'content', 'one two');
    it.type(undo, 's1', 'title', 'B');
    const again = it.open();
    assert.equal(again.undo(it.text, it.set).name, 'title');
    assert.equal(again.undo(it.text, it.set).name, 'content');
    assert.deepEqual(it.texts, { 's1 content': 'one', 's1 title': 'A', 's2 content': 'x' });
    const third = it.open();
    third.redo(it.text, it.set);
    assert.equal(it.texts['s1 content'], 'one two');
    third.redo(it.text, it.set);
    assert.equal(it.texts['s1 title'], 'B');
    assert.equal(third.redo(it.text, it.set), null);
    for (let n = 0; n < 3; n += 1) assert.notEqual(third.undo(it.text, it.set), null);
    assert.equal(third.undo(it.text, it.set), null);
    assert.equal(it.texts['s1 content'], '');
});

test('continuous typing is one change, and a new change clears redo', () => {
    const it = world();
    const undo = it.open();
    for (const text of ['h', 'he', 'hel']) it.type(undo, 's1', 'content', text, 100);
    it.type(undo, 's2', 'content', 'y', 100);
    assert.equal(undo.done.length, 2);
    undo.undo(it.text, it.set);
    undo.undo(it.text, it.set);
    assert.equal(it.texts['s1 content'], '');
    it.type(undo, 's1', 'content', 'new');
    assert.equal(undo.redo(it.text, it.set), null);
    assert.equal(it.texts['s1 content'], 'new');
});

test('changes of other users are not overwritten', () => {
    const it = world();
    const undo = it.open();
    it.type(undo, 's2', 'content', 'mine');
    it.type(undo, 's1', 'content', 'mine');
    it.texts['s1 content'] = 'theirs';
    assert.equal(undo.undo(it.text, it.set).id, 's2', 'the change that still applies');
    assert.deepEqual(it.texts, { 's1 content': 'theirs', 's1 title': 'A', 's2 content': 'x' });
});

test('the list is bounded and per user, and is kept for a week or until sign-out', () => {
    const it = world();
    const undo = it.open();
    for (let n = 0; n < 150; n += 1) it.type(undo, 's1', 'content', `text ${n}`);
    assert.equal(it.open().done.length, 100);
    assert.equal(it.open('bob').done.length, 0);
    for (let n = 0; n < 9; n += 1) it.type(undo, 's1', 'content', `${n}${'x'.repeat(60_000)}`);
    assert.ok(it.storage.getItem('waypost.undo:anna:w').length < 420_000);
    it.storage.setItem('other', 'stays');
    forgetUndo(it.storage);
    assert.deepEqual([...it.storage.items.keys()], ['other']);
    const late = it.open();
    it.type(late, 's1', 'content', 'late');
    it.now += 8 * 24 * 60 * 60 * 1_000;
    assert.equal(it.open().done.length, 0);
    it.storage.setItem('waypost.undo:anna:w', 'not JSON');
    assert.equal(it.open().done.length, 0);
});
