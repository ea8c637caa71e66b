// Plays one walkthrough to the end with a client that the caller provides.
//
// A connection is `{ version, sessionId, tools(), call(name, arguments), prompts(), prompt(name), resources(),
// resource(uri), close() }`: the lists are arrays, `call` returns the result of `tools/call` even if it is an
// error, and all other failures throw.

import assert from 'node:assert/strict';
import Ajv2020 from 'ajv/dist/2020.js';

const TOOLS = [
    'list_walkthroughs',
    'select_walkthrough',
    'next_walkthrough_step',
    'get_walkthrough_status',
    'reset_walkthrough_progress',
];

/** Parses the arguments of a script, `URL ERA`. */
export function parseArguments(eras) {
    const [url, era] = process.argv.slice(2);
    if (!url || !eras.includes(era)) {
        console.error(`usage: ${process.argv[1]} URL ${eras.join('|')}`);
        process.exit(2);
    }
    // A client that never finishes must not block a build.
    setTimeout(() => {
        console.error('the walkthrough was not played within three minutes');
        process.exit(1);
    }, 180_000).unref();
    return { url, era };
}

/**
 * Plays the walkthrough and prints the outcome as one line of JSON.
 *
 * - `connect({ sessionId, version })` opens a new client; both arguments are set if it resumes an existing session;
 * - `expected` is the protocol version that must be negotiated;
 * - `keepsSession` is true if the client uses one session for all its calls.
 */
export async function play({ client, era, expected, keepsSession, connect }) {
    const first = await connect({});
    assert.equal(first.version, expected, 'the negotiated version');
    const tools = await first.tools();
    const call = checkedCall(tools);

    for (const name of TOOLS) {
        assert.ok(tools.some((tool) => tool.name === name), `tools/list has ${name}`);
    }
    const { walkthroughs } = await call(first, 'list_walkthroughs', {});
    assert.ok(walkthroughs.length > 0, 'the demo has walkthroughs');
    const { id, slug, title, step_count: total } = walkthroughs[0];
    assert.equal(walkthroughs[0].status, 'not_started');
    await checkPrompts(first, slug, id);
    await checkOutline(first, id, title);

    // The first half. A session identifies the user; without one, the handle is passed.
    let result = await call(first, 'select_walkthrough', { walkthrough_id: id });
    const handle = result.progress_handle;
    assert.ok(handle, 'progress without an account has a handle');
    const identity = keepsSession ? {} : { progress_handle: handle };
    const half = Math.floor(total / 2);
    for (let done = 0; done < half; done += 1) {
        result = await completeStep(call, first, result.step.id, { walkthrough_id: id, ...identity }, done + 1);
    }
    const currentStep = result.step.id;
    if (!keepsSession) {
        await expectError(call, first, 'next_walkthrough_step', { walkthrough_id: id }, 'no_active_walkthrough');
    }
    const { sessionId, version } = first;
    await first.close();

    // The same user, identified by the handle, in a new client.
    let current = await connect({});
    result = await call(current, 'select_walkthrough', { walkthrough_id: id, progress_handle: handle });
    assert.equal(result.step.id, currentStep, 'a new client with the handle is at the same step');
    assert.equal(result.progress.completed, half);

    // A step that is not the current one, and a repeated request.
    const mine = { walkthrough_id: id, progress_handle: handle };
    const wrong = await expectError(call, current, 'next_walkthrough_step', { ...mine, current_step_id: 'ws_none' }, 'step_mismatch');
    assert.ok(JSON.stringify(wrong).includes(currentStep), 'step_mismatch names the current step');
    const status = await call(current, 'get_walkthrough_status', mine);
    const done = status.steps.filter((step) => step.state === 'completed');
    assert.equal(done.length, half);
    result = await call(current, 'next_walkthrough_step', { ...mine, current_step_id: done[0].id });
    assert.equal(result.step.id, currentStep, 'a repeated request changes nothing');
    assert.equal(result.completed_step_id, null);

    // The same user, identified only by the session, in a new client.
    let bySession = false;
    if (keepsSession && sessionId) {
        await current.close();
        current = await connect({ sessionId, version });
        assert.equal(current.sessionId, sessionId);
        result = await call(current, 'select_walkthrough', { walkthrough_id: id });
        assert.equal(result.step.id, currentStep, 'a new client with the session is at the same step');
        bySession = true;
    }

    let steps = half;
    while (result.step !== null) {
        steps += 1;
        result = await completeStep(call, current, result.step.id, mine, steps);
    }
    assert.equal(steps, total, 'the number of steps matches the list');
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

/** Completes the step and checks the number of completed steps. */
async function completeStep(call, connection, step, identity, completed) {
    const result = await call(connection, 'next_walkthrough_step', { ...identity, current_step_id: step });
    assert.equal(result.completed_step_id, step);
    assert.equal(result.progress.completed, completed);
    assert.equal(result.step === null, completed === result.progress.total);
    return result;
}

/** Checks that the tool's result is an error with the code. */
async function expectError(call, connection, tool, args, code) {
    const { error } = await call(connection, tool, args, true);
    assert.equal(error?.code, code);
    assert.ok(error.message);
    return error;
}

async function checkPrompts(connection, slug, id) {
    const list = await connection.prompts();
    assert.ok(list.some((prompt) => prompt.name === slug), `prompts/list has ${slug}`);
    const { messages } = await connection.prompt(slug);
    assert.ok(messages.some((message) => message.content.text?.includes(id)), 'the prompt names the walkthrough');
}

async function checkOutline(connection, id, title) {
    const uri = `walkthrough://${id}`;
    const list = await connection.resources();
    assert.ok(list.some((resource) => resource.uri === uri), `resources/list has ${uri}`);
    const { contents } = await connection.resource(uri);
    assert.equal(contents[0].uri, uri);
    assert.ok(contents[0].text.includes(title), 'the outline has the title');
}

/**
 * Returns a function that calls a tool and validates its structured content, including errors, against the schema that
 * the tool declares. The schemas have no required members, so it also checks that all declared members are present and
 * no others.
 */
function checkedCall(tools) {
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
            checkMembers({ ...schemas.get(name), properties }, content, name);
        }
        return content;
    };
}

function checkMembers(schema, value, path) {
    if (Array.isArray(value)) {
        value.forEach((item, index) => checkMembers(schema.items, item, `${path}[${index}]`));
    } else if (value !== null && typeof value === 'object') {
        const members = Object.keys(value).sort();
        assert.deepEqual(members, Object.keys(schema.properties).sort(), `the members of ${path}`);
        members.forEach((member) => checkMembers(schema.properties[member], value[member], `${path}.${member}`));
    }
}
