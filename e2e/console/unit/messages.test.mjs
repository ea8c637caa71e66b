// Error messages of the API, as shown on pages.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { plainMessage } from './assets.mjs';

test('messages contain labels instead of API names', () => {
    assert.equal(plainMessage('`title` must not be empty.', 'title'), 'Title must not be empty.');
    assert.equal(plainMessage('`context_for_agent` is missing.', ''), 'Context for the agent is missing.');
    assert.equal(plainMessage('The slug `docs` is reserved.', 'slug'), 'The slug “docs” is reserved.');
    assert.equal(plainMessage('`content` is empty.', ''), 'Content is empty.');
    assert.equal(plainMessage('step 2, `format`: unknown.', ''), 'step 2, Format: unknown.');
    assert.equal(plainMessage('`Not a name`: is quoted.', ''), '“Not a name”: is quoted.');
    assert.equal(plainMessage('One ` is kept.'), 'One ` is kept.');
});
