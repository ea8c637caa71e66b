// Times relative to now.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { relativeTime } from './assets.mjs';

const NOW = Date.parse('2026-03-10T12:00:00Z');
const at = (text) => relativeTime(new Date(text), NOW);

test('times are relative to now', () => {
    assert.equal(at('2026-03-10T11:59:30Z'), 'just now');
    assert.equal(at('2026-03-10T12:00:30Z'), 'just now');
    assert.equal(at('2026-03-10T11:59:00Z'), '1 minute ago');
    assert.equal(at('2026-03-10T11:00:01Z'), '59 minutes ago');
    assert.equal(at('2026-03-10T10:00:00Z'), '2 hours ago');
    assert.equal(at('2026-03-09T12:00:01Z'), '23 hours ago');
    assert.equal(at('2026-03-08T11:00:00Z'), '2 days ago');
    assert.equal(at('2026-03-13T12:00:00Z'), 'in 3 days');
});

test('times more than 30 days away are dates', () => {
    assert.equal(at('2026-02-09T12:00:00Z'), '29 days ago');
    assert.match(at('2026-01-05T12:00:00Z'), /2026/);
    assert.match(at('2027-01-05T12:00:00Z'), /2027/);
});
