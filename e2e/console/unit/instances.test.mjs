// The pages of instances: arguments of tools, and event streams.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventParser, exampleArguments, parseArguments, readEvents } from './assets.mjs';

test('arguments are prefilled from the required members of a schema', () => {
    const schema = {
        type: 'object',
        properties: {
            query: { type: 'string' },
            limit: { type: 'integer', minimum: 1 },
            exact: { type: ['null', 'boolean'] },
            mode: { enum: ['fast', 'slow'] },
            page: { type: 'number', default: 3 },
            tags: { type: 'array' },
            place: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
            either: { anyOf: [{ type: 'null' }, { type: 'string' }] },
            optional: { type: 'string' },
        },
        required: ['query', 'limit', 'exact', 'mode', 'page', 'tags', 'place', 'either', 'unknown'],
    };
    assert.deepEqual(exampleArguments(schema), {
        query: '', limit: 1, exact: false, mode: 'fast', page: 3, tags: [], place: { city: '' }, either: '', unknown: null,
    });
    for (const nothing of [undefined, null, {}, { required: 'query' }, { properties: null }]) assert.deepEqual(exampleArguments(nothing), {});
});

test('schemas of servers cannot cause endless recursion', () => {
    const schema = { type: 'object', required: ['self'], properties: {} };
    schema.properties.self = schema;
    assert.equal(JSON.stringify(exampleArguments(schema)), '{"self":{"self":{"self":{"self":{"self":{}}}}}}');
    const choice = { type: 'object', required: ['a'], properties: {} };
    choice.properties.a = { anyOf: [choice] };
    assert.ok(JSON.stringify(exampleArguments(choice)).length < 200);
});

test('entered arguments must be an object', () => {
    assert.deepEqual(parseArguments(' '), { value: {} });
    assert.deepEqual(parseArguments('{"a": [1]}'), { value: { a: [1] } });
    for (const text of ['[1]', '1', 'null', '"a"']) assert.match(parseArguments(text).problem, /must be a JSON object/);
    assert.match(parseArguments('{').problem, /^The arguments are not JSON/);
});

test('events are found in chunks of any size', () => {
    const text = ': keep\n\ndata: {"a":1}\n\nevent: error\r\ndata: one\r\ndata:two\r\n\r\ndata: incomplete';
    const expected = [{ name: 'message', data: '{"a":1}' }, { name: 'error', data: 'one\ntwo' }];
    for (const size of [1, 2, 3, 7, 100]) {
        const parser = new EventParser();
        const found = [];
        for (let at = 0; at < text.length; at += size) found.push(...parser.push(text.slice(at, at + size)));
        assert.deepEqual(found, expected, `chunks of ${size}`);
    }
});

test('a response is read until it ends', async () => {
    const found = [];
    for await (const event of readEvents(new Response('data: ä\n\ndata: 2\n\n'))) found.push(event.data);
    assert.deepEqual(found, ['ä', '2']);
});
