// Text comparison, the Markdown toolbar, and text kept in the browser.

import assert from 'node:assert/strict';
import test from 'node:test';
import { DraftStore, apply, bytes, characters, compare, edit, isConflict, model, restore } from './assets.mjs';

const side = (parts, kind) => parts.filter((part) => part.kind !== kind).map((part) => part.text).join('');

test('texts are compared by line and word, and both can be reconstructed', () => {
    assert.deepEqual(compare('a b c', 'a x c'), [
        { kind: 'same', text: 'a ' }, { kind: 'del', text: 'b' }, { kind: 'ins', text: 'x' }, { kind: 'same', text: ' c' },
    ]);
    const pairs = [
        ['', ''], ['', 'a'], ['a\n', ''], ['one\ntwo\nthree', 'one\n2\nthree\nfour\n'], ['ä ö', 'ä  ö'], ['a\r\nb', 'a\nb'],
        ['x'.repeat(9), 'y'], ['word '.repeat(2_000), 'other '.repeat(2_000)],
    ];
    for (const [from, to] of pairs) {
        const parts = compare(from, to);
        assert.equal(side(parts, 'ins'), from);
        assert.equal(side(parts, 'del'), to);
        assert.ok(parts.every((part) => part.text !== ''));
    }
});

test('a large text is compared fast enough for typing', () => {
    const from = Array.from({ length: 2_000 }, (_, n) => `line ${n} of the text\n`).join('');
    const began = performance.now();
    const parts = compare(from, from.replace('line 1000 of', 'line 1000 of all'));
    assert.deepEqual(parts.map((part) => part.kind), ['same', 'ins', 'same']);
    assert.ok(performance.now() - began < 1_000);
});

const press = (kind, marked) => {
    const start = marked.indexOf('[[');
    const end = marked.indexOf(']]') - 2;
    const text = marked.replace('[[', '').replace(']]', '');
    const change = apply(kind, { text, start, end });
    const after = text.slice(0, change.from) + change.insert + text.slice(change.to);
    return `${after.slice(0, change.start)}[[${after.slice(change.start, change.end)}]]${after.slice(change.end)}`;
};

test('toolbar actions apply to the selection and can be reversed', () => {
    const cases = [
        ['bold', 'a [[b]] c', 'a **[[b]]** c'],
        ['bold', 'a **[[b]]** c', 'a [[b]] c'],
        ['bold', 'a [[**b**]] c', 'a [[b]] c'],
        ['italic', '[[]]', '_[[italic text]]_'],
        ['code', 'run [[make]]', 'run `[[make]]`'],
        ['link', 'see [[here]]', 'see [here]([[https://]])'],
        ['link', '[[https://a.example/x]]', '[[[text]]](https://a.example/x)'],
        ['list', 'x\n[[a\nb]]\ny', 'x\n[[- a\n- b]]\ny'],
        ['list', '[[- a\n- b]]', '[[a\nb]]'],
        ['numbers', '[[a\nb]]', '[[1. a\n2. b]]'],
        ['block', 'x\n[[make]]\ny', 'x\n```\n[[make]]\n```\ny'],
        ['block', 'a [[```]] b', 'a \n````\n[[```]]\n````\n b'],
    ];
    for (const [kind, before, after] of cases) assert.equal(press(kind, before), after, `${kind}: ${before}`);
});

test('lengths match the server', () => {
    assert.equal(bytes('aä€😀'), 10);
    assert.equal(characters('aä€😀'), 4);
});

/** A fake localStorage. */
class Memory {
    map = new Map();
    get length() { return this.map.size; }
    key(index) { return [...this.map.keys()][index] ?? null; }
    getItem(key) { return this.map.get(key) ?? null; }
    setItem(key, value) { this.map.set(key, String(value)); }
    removeItem(key) { this.map.delete(key); }
}

const whole = (content) => ({
    id: 'wt_1', revision: 1, title: 'T', type: 'course',
    steps: [{ id: 'ws_1', title: 'One', content, section_title: null }],
});

test('unsaved text survives a reload', () => {
    const storage = new Memory();
    const options = { who: 'a@b.example', walkthrough: 'wt_1', tab: '1' };
    const keeper = new DraftStore(storage, options);
    const before = model(whole('old'));
    edit(before.steps[0].fields.content, 'typed');
    keeper.put('ws_1', 1, before.steps[0]);
    assert.equal(new DraftStore(storage, { ...options, who: 'c@d.example' }).all().length, 0, 'other users cannot read it');
    assert.equal(new DraftStore(storage, { ...options, walkthrough: 'wt_2' }).all().length, 0);

    const [kept] = new DraftStore(storage, { ...options, tab: '2' }).all();
    assert.deepEqual([kept.name, kept.revision, kept.title], ['ws_1', 1, 'One']);
    const same = model(whole('old')).steps[0];
    assert.ok(restore(same, kept.fields));
    assert.equal(same.fields.content.text, 'typed');
    assert.equal(isConflict(same.fields.content), false);

    const other = model(whole('theirs')).steps[0];
    assert.ok(restore(other, kept.fields));
    assert.ok(isConflict(other.fields.content), 'another user was faster');

    assert.equal(restore(model(whole('typed')).steps[0], kept.fields), false, 'the text had been saved');

    before.steps[0].fields.content.text = 'old';
    keeper.put('ws_1', 1, before.steps[0]);
    assert.equal(storage.length, 0);
});

test('full, unavailable, expired or malformed storage is handled', () => {
    const storage = new Memory();
    const keeper = new DraftStore(storage, { who: 'a', walkthrough: 'w', tab: '1', now: () => 1e15 });
    storage.setItem('waypost.text:a:w:s:1', '{');
    storage.setItem('waypost.text:a:w:t:1', JSON.stringify({ at: 0, fields: {} }));
    storage.setItem('other', 'stays');
    assert.deepEqual(keeper.all(), []);
    assert.equal(storage.length, 1);
    const broken = new DraftStore({ get length() { throw new Error('forbidden'); } }, { who: 'a', walkthrough: 'w', tab: '1' });
    assert.deepEqual(broken.all(), []);
    broken.put('s', 1, model(whole('x')).steps[0]);
});
