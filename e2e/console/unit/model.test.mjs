// The editor's merge rules: typed text is never lost, and unseen changes of others are never overwritten.

import assert from 'node:assert/strict';
import test from 'node:test';
import * as m from './assets.mjs';

const dto = (id, more = {}) => ({
    id, key: null, title: id, section_title: null, content: 'Text', introduction_for_agent: null, context_for_agent: null,
    operations_for_agent: null, metadata: {}, ...more,
});
const whole = (steps, more = {}) => ({
    id: 'wt_1', slug: 's', revision: 1, state: 'draft', type: 'course', title: 'T', description: '', tags: ['a', 'b'],
    estimated_duration_minutes: 5, current_version: null, has_unpublished_changes: true, steps, ...more,
});
const find = (model, id) => model.steps.find((step) => step.id === id);

test('only typed changes are sent', () => {
    const model = m.model(whole([dto('a')]));
    assert.equal(m.isUnsaved(model), false);
    assert.equal(m.changes(find(model, 'a')), null);
    m.edit(find(model, 'a').fields.content, 'New');
    assert.deepEqual(m.changes(find(model, 'a')), { body: { content: 'New' }, sent: { content: 'New' } });
    m.edit(model.head.fields.tags, 'a, , c ');
    m.edit(model.head.fields.estimated_duration_minutes, '');
    assert.deepEqual(m.changes(model.head).body, { tags: ['a', 'c'], estimated_duration_minutes: null });
});

test('an emptied optional field is cleared', () => {
    const model = m.model(whole([dto('a', { context_for_agent: 'x' })]));
    m.edit(find(model, 'a').fields.context_for_agent, '');
    m.edit(find(model, 'a').fields.content, '');
    assert.deepEqual(m.changes(find(model, 'a')).body, { content: '', context_for_agent: null });
});

test('normalised text from the server never replaces typed text', () => {
    const model = m.model(whole([dto('a')]));
    const { title } = find(model, 'a').fields;
    m.edit(title, 'Hello ');
    m.saved(find(model, 'a'), { title: 'Hello ' }, dto('a', { title: 'Hello' }), () => true);
    assert.equal(title.text, 'Hello ');
    assert.equal(m.isDirty(title), false);
    m.leave(title);
    assert.equal(title.text, 'Hello ');
    m.saved(find(model, 'a'), { title: 'Hello ' }, dto('a', { title: 'Hello' }), () => false);
    assert.equal(title.text, 'Hello ');
    m.merge(model, whole([dto('a', { title: 'Hello' })], { revision: 2 }), () => false);
    assert.deepEqual([title.text, m.isDirty(title)], ['Hello ', false]);
    m.merge(model, whole([dto('a', { title: 'Theirs' })], { revision: 3 }), () => false);
    assert.equal(title.text, 'Theirs');
});

test('text typed during a save is saved next', () => {
    const model = m.model(whole([dto('a')]));
    const { content } = find(model, 'a').fields;
    m.edit(content, 'one');
    const { sent } = m.changes(find(model, 'a'));
    m.edit(content, 'one two');
    m.saved(find(model, 'a'), sent, dto('a', { content: 'one' }));
    assert.equal(content.text, 'one two');
    assert.deepEqual(m.changes(find(model, 'a')).body, { content: 'one two' });
});

test('changes of others to other fields are merged', () => {
    const model = m.model(whole([dto('a'), dto('b')]));
    m.edit(find(model, 'a').fields.content, 'mine');
    const report = m.merge(model, whole([dto('a', { title: 'Theirs' }), dto('b', { content: 'Theirs' })], { revision: 5 }));
    assert.equal(model.revision, 5);
    assert.deepEqual(report.changed, ['a', 'b']);
    assert.equal(find(model, 'a').fields.title.text, 'Theirs');
    assert.deepEqual(m.changes(find(model, 'a')).body, { content: 'mine' });
});

test('two users in the same field: nothing is sent until the conflict is resolved', () => {
    const conflict = () => {
        const model = m.model(whole([dto('a')]));
        const { content } = find(model, 'a').fields;
        m.edit(content, 'mine');
        m.merge(model, whole([dto('a', { content: 'theirs' })], { revision: 2 }));
        assert.ok(m.isConflict(content));
        assert.equal(content.text, 'mine');
        assert.equal(m.changes(find(model, 'a')), null);
        return [content, find(model, 'a'), model];
    };
    {
        const [content, step] = conflict();
        m.edit(content, 'mine, and more');
        m.resolve(content, content.text);
        assert.deepEqual(m.changes(step).body, { content: 'mine, and more' });
    }
    {
        const [content, step] = conflict();
        m.resolve(content, 'theirs');
        assert.equal(content.text, 'theirs');
        assert.equal(m.changes(step), null);
    }
    {
        const [content, step] = conflict();
        m.resolve(content, 'both');
        assert.deepEqual(m.changes(step).body, { content: 'both' });
    }
    {
        // The other user continues and then writes the same text.
        const [content, , model] = conflict();
        m.merge(model, whole([dto('a', { content: 'theirs again' })], { revision: 3 }));
        assert.equal(content.theirs, 'theirs again');
        m.merge(model, whole([dto('a', { content: 'mine' })], { revision: 4 }));
        assert.equal(m.isConflict(content), false);
        assert.equal(m.isDirty(content), false);
    }
    {
        // The other user reverts the change.
        const [content, step, model] = conflict();
        m.merge(model, whole([dto('a')], { revision: 3 }));
        assert.equal(m.isConflict(content), false);
        assert.deepEqual(m.changes(step).body, { content: 'mine' });
    }
});

test('a lost response is not a conflict', () => {
    const model = m.model(whole([dto('a')]));
    m.edit(find(model, 'a').fields.content, 'mine');
    m.merge(model, whole([dto('a', { content: 'mine' })], { revision: 2 }));
    assert.equal(m.isUnsaved(model), false);
});

test('a focused field is not changed; typing in it then is a conflict', () => {
    const focused = () => true;
    const model = m.model(whole([dto('a')]));
    const { content } = find(model, 'a').fields;
    m.merge(model, whole([dto('a', { content: 'theirs' })], { revision: 2 }), focused);
    assert.equal(content.text, 'Text');
    assert.equal(m.isConflict(content), false);
    m.edit(content, 'Text and mine');
    assert.ok(m.isConflict(content));
    m.edit(content, 'Text');
    m.leave(content);
    assert.equal(content.text, 'theirs');
});

test('a rejected text is not sent again until it changes', () => {
    const model = m.model(whole([dto('a')]));
    const { title } = find(model, 'a').fields;
    m.edit(title, '');
    title.refused = { text: '', message: 'Write a title.' };
    assert.equal(m.changes(find(model, 'a')), null);
    assert.ok(m.isUnsaved(model));
    m.edit(title, 'x');
    assert.equal(title.refused, null);
    assert.deepEqual(m.changes(find(model, 'a')).body, { title: 'x' });
});

test('steps added, moved and deleted by others are merged', () => {
    const model = m.model(whole([dto('a'), dto('b'), dto('c')]));
    const report = m.merge(model, whole([dto('c'), dto('n'), dto('a')]));
    assert.deepEqual(model.steps.map((step) => step.id), ['c', 'n', 'a']);
    assert.deepEqual([report.added, report.removed.map((step) => step.id), report.moved], [['n'], ['b'], true]);
    assert.deepEqual(m.merge(model, whole([dto('c'), dto('n'), dto('a')])).moved, false);
});

test('a deleted step keeps its position while it has unsaved text', () => {
    const model = m.model(whole([dto('a'), dto('b'), dto('c')]));
    m.edit(find(model, 'b').fields.content, 'mine');
    assert.equal(m.merge(model, whole([dto('a'), dto('c')])).removed.length, 1);
    assert.deepEqual(model.steps.map((step) => [step.id, step.gone]), [['a', false], ['b', true], ['c', false]]);
    assert.equal(m.changes(find(model, 'b')), null, 'the step no longer exists on the server');
    assert.equal(m.previous(model, 'b'), 'a');
    assert.equal(m.previous(model, 'c'), 'a', 'deleted steps are skipped');
    assert.equal(m.merge(model, whole([dto('a'), dto('c')])).removed.length, 0, 'reported once');
    assert.equal(m.toStep(find(model, 'b')).content, 'mine');
    m.merge(model, whole([dto('a'), dto('b', { content: 'mine' }), dto('c')]));
    assert.equal(find(model, 'b').gone, false);
    assert.equal(m.isUnsaved(model), false);
});

test('moved steps take the section of their new position', () => {
    const model = m.model(whole([dto('a'), dto('b'), dto('c')]));
    m.moveAfter(model, 'a', 'c');
    assert.deepEqual(model.steps.map((step) => step.id), ['b', 'c', 'a']);
    m.moveAfter(model, 'a', null);
    m.moveAfter(model, 'a', 'a');
    assert.deepEqual(model.steps.map((step) => step.id), ['a', 'b', 'c']);
    assert.equal(m.sectionBetween('', 'A', 'A'), 'A');
    assert.equal(m.sectionBetween('B', 'A', 'B'), 'B');
    assert.equal(m.sectionBetween('C', 'A', 'B'), 'A');
    assert.equal(m.sectionBetween('C', undefined, 'B'), 'B');
    assert.equal(m.sectionBetween('C', undefined, undefined), 'C');
});

test('required fields depend on the type', () => {
    const [step] = m.model(whole([dto('a', { content: ' ' })])).steps;
    const expected = {
        course: ['content'], quickstart: ['content'], installer: ['content', 'operations_for_agent'],
        troubleshooting: ['content', 'context_for_agent'],
        integration: ['content', 'context_for_agent', 'operations_for_agent'],
    };
    for (const [kind, fields] of Object.entries(expected)) assert.deepEqual(m.missing(kind, step), fields, kind);
});

/** Random concurrent edits of one field: typed text is never lost without a decision, and unseen changes are never overwritten. */
test('no text is lost in random concurrent edits', () => {
    let seed = 7;
    const random = (n) => {
        seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
        return Math.floor(seed / 65_536) % n;
    };
    for (let round = 0; round < 2_000; round += 1) {
        const server = { revision: 1, content: 'v0' };
        const seen = new Set(['v0']);
        const model = m.model(whole([dto('a', { content: 'v0' })]));
        const { content } = find(model, 'a').fields;
        for (let turn = 0; turn < 12; turn += 1) {
            const get = () => whole([dto('a', { content: server.content })], { revision: server.revision });
            const focused = random(2) === 0;
            const show = () => [content.base, content.theirs, content.text].forEach((text) => seen.add(text));
            switch (random(6)) {
                case 0: m.edit(content, `mine ${round} ${turn}`); break;
                case 1: server.content = `theirs ${round} ${turn}`; server.revision += 1; break;
                case 2: m.merge(model, get(), () => focused); show(); break;
                case 3: {
                    const change = m.changes(find(model, 'a'));
                    if (!change) break;
                    if (model.revision !== server.revision) { m.merge(model, get(), () => focused); show(); break; }
                    assert.ok(seen.has(server.content), `${server.content} was overwritten without being seen`);
                    server.content = change.body.content.trim();
                    server.revision += 1;
                    m.saved(find(model, 'a'), change.sent, dto('a', { content: server.content }), () => focused);
                    model.revision = server.revision;
                    show();
                    break;
                }
                case 4: {
                    const { text } = content;
                    const dirty = m.isDirty(content);
                    m.leave(content);
                    if (dirty) assert.equal(content.text, text);
                    break;
                }
                default: if (m.isConflict(content)) m.resolve(content, random(2) ? content.text : content.theirs);
            }
        }
        // At the end, both have the same text after the last conflict is resolved.
        m.merge(model, whole([dto('a', { content: server.content })], { revision: server.revision }));
        m.leave(content);
        if (m.isConflict(content)) m.resolve(content, content.theirs);
        if (!m.isDirty(content)) assert.equal(content.text, server.content);
    }
});
