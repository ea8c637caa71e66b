// One walkthrough, played to the end by a client that the caller brings.
//
// A connection is `{ version, sessionId, tools(), call(name, arguments), prompts(), prompt(name), resources(),
// resource(uri), close() }`: the lists are arrays, `call` gives the result of `tools/call` whether or not it is an
// error, and everything else that fails throws.

import assert from 'node:assert/strict';
import Ajv2020 from 'ajv/dist/2020.js';

const TOOLS = [
    'list_walkthroughs',
    'select_walkthrough',
    'next_walkthrough_step',
    'get_walkthrough_status',
    'reset_walkthrough_progress',
];

/** The arguments of a script: `URL ERA`. */
export function words(eras) {
    const [url, era] = process.argv.slice(2);
    if (!url || !eras.includes(era)) {
        console.error(`usage: ${process.argv[1]} URL ${eras.join('|')}`);
        process.exit(2);
    }
    // A client that waits for ever must not hold up a build.
    setTimeout(() => {
        console.error('the walkthrough was not played within three minutes');
        process.exit(1);
    }, 180_000).unref();
    return { url, era };
}

/**
 * Plays, and prints what came of it as one line of JSON.
 *
 * - `connect({ sessionId, version })` opens a new client; the two are there when it is to go on in an old session;
 * - `expected` is the protocol version that has to be agreed on;
 * - `keepsSession` says that the client keeps the session that it was given over its calls.
 */
export async function play({ client, era, expected, keepsSession, connect }) {
    const first = await connect({});
    assert.equal(first.version, expected, 'the negotiated version');
    const tools = await first.tools();
    const call = checked(tools);

    for (const name of TOOLS) {
        assert.ok(tools.some((tool) => tool.name === name), `tools/list has ${name}`);
    }
    const { walkthroughs } = await call(first, 'list_walkthroughs', {});
    assert.ok(walkthroughs.length > 0, 'the demo has walkthroughs');
    const { id, slug, title, step_count: total } = walkthroughs[0];
    assert.equal(walkthroughs[0].status, 'not_started');
    await prompts(first, slug, id);
    await outline(first, id, title);

    // The first half. A session is enough to be known by; without one the handle goes along.
    let result = await call(first, 'select_walkthrough', { walkthrough_id: id });
    const handle = result.progress_handle;
    assert.ok(handle, 'progress that was written without an account comes with a handle');
    const who = keepsSession ? {} : { progress_handle: handle };
    const half = Math.floor(total / 2);
    for (let done = 0; done < half; done += 1) {
        result = await next(call, first, result.step.id, { walkthrough_id: id, ...who }, done + 1);
    }
    const waiting = result.step.id;
    if (!keepsSession) {
        await refused(call, first, 'next_walkthrough_step', { walkthrough_id: id }, 'no_active_walkthrough');
    }
    const { sessionId, version } = first;
    await first.close();

    // The same person, by the handle, in a client that has seen nothing.
    let current = await connect({});
    result = await call(current, 'select_walkthrough', { walkthrough_id: id, progress_handle: handle });
    assert.equal(result.step.id, waiting, 'a new client with the handle is at the same step');
    assert.equal(result.progress.completed, half);

    // A step that is not the current one, and a repeated request.
    const mine = { walkthrough_id: id, progress_handle: handle };
    const wrong = await refused(call, current, 'next_walkthrough_step', { ...mine, current_step_id: 'ws_none' }, 'step_mismatch');
    assert.ok(JSON.stringify(wrong).includes(waiting), 'step_mismatch names the current step');
    const status = await call(current, 'get_walkthrough_status', mine);
    const done = status.steps.filter((step) => step.state === 'completed');
    assert.equal(done.length, half);
    result = await call(current, 'next_walkthrough_step', { ...mine, current_step_id: done[0].id });
    assert.equal(result.step.id, waiting, 'a repeated request changes nothing');
    assert.equal(result.completed_step_id, null);

    // The same person, by the session, in a client that was given nothing else.
    let bySession = false;
    if (keepsSession && sessionId) {
        await current.close();
        current = await connect({ sessionId, version });
        assert.equal(current.sessionId, sessionId);
        result = await call(current, 'select_walkthrough', { walkthrough_id: id });
        assert.equal(result.step.id, waiting, 'a new client with the session is at the same step');
        bySession = true;
    }

    let steps = half;
    while (result.step !== null) {
        steps += 1;
        result = await next(call, current, result.step.id, mine, steps);
    }
    assert.equal(steps, total, 'as many steps as the list said');
    const end = await call(current, 'get_walkthrough_status', mine);
    assert.equal(end.progress.status, 'completed');
    assert.equal(end.progress.percent, 100);
    assert.ok(end.steps.every((step) => step.state === 'completed'));
    await current.close();

    console.log(JSON.stringify({
        client,
        era,
        protocol_version: version,
        walkthrough: slug,
        steps,
        resumed: true,
        resumed_by_session: bySession,
        completed: true,
    }));
}

/** Completes the step, and checks that the count goes on. */
async function next(call, connection, step, who, completed) {
    const result = await call(connection, 'next_walkthrough_step', { ...who, current_step_id: step });
    assert.equal(result.completed_step_id, step);
    assert.equal(result.progress.completed, completed);
    assert.equal(result.step === null, completed === result.progress.total);
    return result;
}

/** An error of a tool is a result, with the code. */
async function refused(call, connection, tool, args, code) {
    const { error } = await call(connection, tool, args, true);
    assert.equal(error?.code, code);
    assert.ok(error.message);
    return error;
}

async function prompts(connection, slug, id) {
    const list = await connection.prompts();
    assert.ok(list.some((prompt) => prompt.name === slug), `prompts/list has ${slug}`);
    const { messages } = await connection.prompt(slug);
    assert.ok(messages.some((message) => message.content.text?.includes(id)), 'the prompt says which walkthrough');
}

async function outline(connection, id, title) {
    const uri = `walkthrough://${id}`;
    const list = await connection.resources();
    assert.ok(list.some((resource) => resource.uri === uri), `resources/list has ${uri}`);
    const { contents } = await connection.resource(uri);
    assert.equal(contents[0].uri, uri);
    assert.ok(contents[0].text.includes(title), 'the outline has the title');
}

/**
 * Calls tools, and holds every structured content, errors too, to the schema that the tool declares. The schemas
 * require nothing, so it also looks that what they declare is there and nothing else.
 */
function checked(tools) {
    const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true });
    const schemas = new Map(tools.map((tool) => [tool.name, tool.outputSchema]));
    const validators = new Map(tools.map((tool) => [tool.name, ajv.compile(tool.outputSchema)]));
    return async (connection, name, args, isError = false) => {
        const result = await connection.call(name, args);
        const content = result.structuredContent;
        const text = JSON.stringify(result);
        assert.equal(result.isError ?? false, isError, `${name}: ${text}`);
        assert.ok(result.content[0]?.text, `${name} has text`);
        const validate = validators.get(name);
        assert.ok(validate(content), `${name}: ${ajv.errorsText(validate.errors)} in ${text}`);
        if (isError) {
            assert.deepEqual(Object.keys(content), ['error'], text);
        } else {
            const { error: _, ...properties } = schemas.get(name).properties;
            same({ ...schemas.get(name), properties }, content, name);
        }
        return content;
    };
}

function same(schema, value, path) {
    if (Array.isArray(value)) {
        value.forEach((item, index) => same(schema.items, item, `${path}[${index}]`));
    } else if (value !== null && typeof value === 'object') {
        const members = Object.keys(value).sort();
        assert.deepEqual(members, Object.keys(schema.properties).sort(), `the members of ${path}`);
        members.forEach((member) => same(schema.properties[member], value[member], `${path}.${member}`));
    }
}
