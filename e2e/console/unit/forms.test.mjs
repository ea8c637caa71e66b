// Form input that is stored when a form is submitted, in case the session has expired.

import assert from 'node:assert/strict';
import test from 'node:test';
import { FormStore, fieldsOf, fill, isChanged } from '../../../crates/console/assets/forms.js';

class Storage {
    items = new Map();
    getItem(key) { return this.items.get(key) ?? null; }
    setItem(key, value) { this.items.set(key, value); }
    removeItem(key) { this.items.delete(key); }
}

const input = (name, value, type = 'text', more = {}) => ({
    name, type, value, defaultValue: '', dataset: {}, disabled: false, getAttribute: (it) => more[it] ?? null, ...more,
});
const form = (...elements) => ({ elements });

test('secrets, files and confirmations are never stored', () => {
    const kept = fieldsOf(form(
        input('title', 'Help'), input('client_secret', 'x', 'password'), input('file', 'x', 'file'), input('revision', '3', 'hidden'),
        input('confirm', 'acme', 'text', { dataset: { typed: 'acme' } }), input('code', '123456', 'text', { autocomplete: 'one-time-code' }),
        input('', 'nameless'), input('off', 'x', 'text', { disabled: true }),
    ));
    assert.deepEqual(kept, [{ name: 'title', type: 'text', value: 'Help' }]);
});

test('a form is restored completely', () => {
    const option = (value) => ({ value, selected: false });
    const list = (name, ...chosen) => {
        const options = ['a', 'b', 'c'].map(option);
        for (const it of options) it.selected = chosen.includes(it.value);
        return { ...input(name, '', 'select-multiple'), options, get selectedOptions() { return options.filter((it) => it.selected); } };
    };
    const make = (...chosen) => form(
        input('name', chosen[0] ?? '', 'text'), input('x', 'one', 'checkbox', { checked: chosen.includes('one') }),
        input('x', 'two', 'checkbox', { checked: chosen.includes('two') }), list('events', ...chosen),
    );
    const [typed, empty] = [make('b', 'two', 'c'), make()];
    assert.deepEqual(fill(empty, fieldsOf(typed)), []);
    assert.deepEqual(fieldsOf(empty), fieldsOf(typed));
    assert.deepEqual(fill(form(), [{ name: 'gone', type: 'text', value: 'text' }, { name: 'gone', type: 'text', value: '' }]), [
        { name: 'gone', type: 'text', value: 'text' },
    ]);
});

test('a form is restored once, on its page, for the same user, within an hour', () => {
    let now = 1_000;
    const storage = new Storage();
    const store = new FormStore(storage, () => now);
    const entry = { viewer: 'anna', page: '/o/acme/t', action: '/o/acme/t', index: 0, fields: [] };

    store.write(entry);
    assert.equal(store.arrive('anna', '/o/acme/t'), null, 'the submit succeeded');
    assert.equal(storage.items.size, 0);

    const lose = () => { store.write(entry); store.arrive(null, '/login'); store.arrive(null, '/login/code'); };
    lose();
    assert.equal(store.arrive('anna', '/o/acme/t').action, '/o/acme/t');
    assert.equal(store.arrive('anna', '/o/acme/t'), null, 'once');

    lose();
    assert.equal(store.arrive('anna', '/'), null, 'another page first');
    assert.notEqual(store.arrive('anna', '/o/acme/t'), null);

    lose();
    assert.equal(store.arrive('bob', '/o/acme/t'), null);
    assert.equal(storage.items.size, 0, 'nothing is kept for another user');

    lose();
    now += 60 * 60 * 1_000;
    assert.equal(store.arrive('anna', '/o/acme/t'), null);
    assert.equal(storage.items.size, 0);

    store.write({ ...entry, fields: [{ name: 'x', type: 'text', value: 'x'.repeat(400_000) }] });
    assert.equal(storage.items.size, 0, 'the size is limited');
    storage.setItem('waypost.form', 'not JSON');
    assert.equal(store.read(), null);
});

test('a rejected form is restored on its original page', () => {
    const store = new FormStore(new Storage());
    const [page, action] = ['/o/acme/tickets/1?from=list', '/o/acme/tickets/1/comments'];
    const send = () => store.write({ viewer: 'anna', page, action, index: 0, fields: [] });
    assert.equal(store.home(page, false), page);
    send();
    assert.equal(store.home(action, false), page, 'the form was rejected');
    assert.equal(store.home(action, true), action, 'the form was accepted');
    assert.equal(store.home('/o/acme/tickets/1', false), '/o/acme/tickets/1');
    store.arrive('anna', action);
    assert.equal(store.home(action, false), action, 'nothing was submitted since');
});

test('only changed fields count as changed', () => {
    assert.equal(isChanged(input('a', '')), false);
    assert.equal(isChanged(input('a', 'x')), true);
    assert.equal(isChanged(input('a', 'x', 'hidden')), false);
    assert.equal(isChanged(input('a', 'on', 'checkbox', { checked: true, defaultChecked: true })), false);
    assert.equal(isChanged(input('a', 'on', 'checkbox', { checked: false, defaultChecked: true })), true);
    const options = [{ selected: true, defaultSelected: false }, { selected: false, defaultSelected: false }];
    assert.equal(isChanged(input('a', '', 'select-one', { options })), false, 'the first option is selected by default');
    assert.equal(isChanged(input('a', '', 'select-one', { options: options.toReversed() })), true);
    assert.equal(isChanged(input('typed', 'acme', 'text', { dataset: { typed: 'acme' } })), false);
});
