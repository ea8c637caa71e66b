// Forms whose session has ended: what is kept, for whom, and for how long.

import assert from 'node:assert/strict';
import test from 'node:test';
import { FormStore, fieldsOf, fill, isChanged } from '../../../crates/web/assets/forms.js';

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

test('secrets, files and confirmations are never kept', () => {
    const kept = fieldsOf(form(
        input('title', 'Help'), input('client_secret', 'x', 'password'), input('file', 'x', 'file'), input('revision', '3', 'hidden'),
        input('confirm', 'acme', 'text', { dataset: { typed: 'acme' } }), input('code', '123456', 'text', { autocomplete: 'one-time-code' }),
        input('', 'nameless'), input('off', 'x', 'text', { disabled: true }),
    ));
    assert.deepEqual(kept, [{ name: 'title', type: 'text', value: 'Help' }]);
});

test('a form comes back as it was', () => {
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

test('it comes back once, on its page, for the same user, within an hour', () => {
    let now = 1_000;
    const storage = new Storage();
    const kept = new FormStore(storage, () => now);
    const entry = { viewer: 'anna', page: '/o/acme/t', action: '/o/acme/t', index: 0, fields: [] };

    kept.write(entry);
    assert.equal(kept.arrive('anna', '/o/acme/t'), null, 'it was answered');
    assert.equal(storage.items.size, 0);

    const lose = () => { kept.write(entry); kept.arrive(null, '/login'); kept.arrive(null, '/login/code'); };
    lose();
    assert.equal(kept.arrive('anna', '/o/acme/t').action, '/o/acme/t');
    assert.equal(kept.arrive('anna', '/o/acme/t'), null, 'once');

    lose();
    assert.equal(kept.arrive('anna', '/'), null, 'another page first');
    assert.notEqual(kept.arrive('anna', '/o/acme/t'), null);

    lose();
    assert.equal(kept.arrive('bob', '/o/acme/t'), null);
    assert.equal(storage.items.size, 0, 'nothing stays for another user');

    lose();
    now += 60 * 60 * 1_000;
    assert.equal(kept.arrive('anna', '/o/acme/t'), null);
    assert.equal(storage.items.size, 0);

    kept.write({ ...entry, fields: [{ name: 'x', type: 'text', value: 'x'.repeat(400_000) }] });
    assert.equal(storage.items.size, 0, 'of a limited size');
    storage.setItem('waypost.form', 'not JSON');
    assert.equal(kept.read(), null);
});

test('a form that was refused comes back on the page that it was sent from', () => {
    const kept = new FormStore(new Storage());
    const [page, action] = ['/o/acme/tickets/1?from=list', '/o/acme/tickets/1/comments'];
    const send = () => kept.write({ viewer: 'anna', page, action, index: 0, fields: [] });
    assert.equal(kept.home(page, false), page);
    send();
    assert.equal(kept.home(action, false), page, 'it was refused');
    assert.equal(kept.home(action, true), action, 'it was accepted');
    assert.equal(kept.home('/o/acme/tickets/1', false), '/o/acme/tickets/1');
    kept.arrive('anna', action);
    assert.equal(kept.home(action, false), action, 'nothing was sent since');
});

test('only what was changed is asked about', () => {
    assert.equal(isChanged(input('a', '')), false);
    assert.equal(isChanged(input('a', 'x')), true);
    assert.equal(isChanged(input('a', 'x', 'hidden')), false);
    assert.equal(isChanged(input('a', 'on', 'checkbox', { checked: true, defaultChecked: true })), false);
    assert.equal(isChanged(input('a', 'on', 'checkbox', { checked: false, defaultChecked: true })), true);
    const options = [{ selected: true, defaultSelected: false }, { selected: false, defaultSelected: false }];
    assert.equal(isChanged(input('a', '', 'select-one', { options })), false, 'the first one is chosen by itself');
    assert.equal(isChanged(input('a', '', 'select-one', { options: options.toReversed() })), true);
    assert.equal(isChanged(input('typed', 'acme', 'text', { dataset: { typed: 'acme' } })), false);
});
