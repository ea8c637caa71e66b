// Plays one walkthrough to the end as a signed-in user, with a client that the caller provides, in two runs: the first
// is killed in the middle, and the second resumes at the same step. Or, with the run `gateway`, lists the tools that the user
// can use there and calls one. A connection is `{ version, tools(), call(name, arguments), close() }`.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The script's only argument, as JSON: `url` of the server; `on_connect`, whether connecting requires a sign-in; `era`,
 * the era to use; `user`, the origin of the simulated user (tests/support/user.rs); `state`, a folder for the client's
 * data; `run`, `first`, `second` or `gateway`; `tool`, the name of the tool to call at the gateway; `document`, the URL
 * of the client's metadata document, or null if the client registers itself.
 */
export const config = JSON.parse(process.argv[2]);

// A client that never finishes must not block a build.
setTimeout(() => {
    console.error('the walkthrough was not played within three minutes');
    process.exit(1);
}, 180_000);

/** Signs in as the simulated user. Returns the URL to which the browser is then redirected. */
export async function signIn(url) {
    const response = await fetch(`${config.user}/drive?${new URLSearchParams({ url })}`);
    const text = await response.text();
    assert.ok(response.ok, text);
    return new URL(text);
}

/** Returns the environment variables that make clients open `browser.mjs` as the browser. */
export function browserEnv() {
    const script = fileURLToPath(new URL('browser.mjs', import.meta.url));
    return { BROWSER: `${process.execPath} ${script}`, SIGN_IN_USER: config.user, PATH: process.env.PATH };
}

/** Returns a port for the client to listen on: free at the first call, and the same in both runs. */
export async function port() {
    const file = join(config.state, 'port');
    if (!existsSync(file)) {
        const server = createServer();
        await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
        writeFileSync(file, String(server.address().port));
        await new Promise((resolve) => server.close(resolve));
    }
    return Number(readFileSync(file, 'utf8'));
}

async function signIns() {
    const response = await fetch(`${config.user}/sign-ins`);
    return Number(await response.text());
}

async function callTool(connection, name, args) {
    const result = await connection.call(name, args);
    assert.ok(!result.isError, `${name}: ${JSON.stringify(result)}`);
    return result.structuredContent;
}

async function completeStep(connection, id, step, completed) {
    const result = await callTool(connection, 'next_walkthrough_step', { walkthrough_id: id, current_step_id: step });
    assert.equal(result.completed_step_id, step);
    assert.equal(result.progress.completed, completed);
    assert.equal(result.progress_handle, null, 'a signed-in user needs no handle');
    return result;
}

async function first(connect) {
    const connection = await connect();
    const { walkthroughs } = await callTool(connection, 'list_walkthroughs', {});
    const { id, step_count: total, status } = walkthroughs[0];
    assert.equal(status, 'not_started');
    const expected = config.on_connect ? 1 : 0;
    assert.equal(await signIns(), expected, 'connecting and listing require a sign-in only with on_connect');
    let result = await callTool(connection, 'select_walkthrough', { walkthrough_id: id });
    assert.equal(await signIns(), 1, 'starting a walkthrough requires a sign-in');
    const half = Math.floor(total / 2);
    for (let done = 1; done <= half; done += 1) {
        result = await completeStep(connection, id, result.step.id, done);
    }
    console.log(JSON.stringify({ protocol_version: connection.version, at: result.step.id, completed: half }));
    // Waits until it is killed.
    await new Promise(() => {});
}

async function second(connect) {
    const connection = await connect();
    const { walkthroughs } = await callTool(connection, 'list_walkthroughs', {});
    const { id, step_count: total, status } = walkthroughs[0];
    assert.equal(status, 'in_progress', 'a client with a token is recognised when it lists walkthroughs');
    let result = await callTool(connection, 'select_walkthrough', { walkthrough_id: id });
    const resumed = result.step.id;
    let steps = result.progress.completed;
    while (result.step !== null) {
        steps += 1;
        result = await completeStep(connection, id, result.step.id, steps);
    }
    assert.equal(steps, total, 'the number of steps matches the list');
    const end = await callTool(connection, 'get_walkthrough_status', { walkthrough_id: id });
    assert.equal(end.progress.status, 'completed');
    await connection.close();
    console.log(JSON.stringify({ protocol_version: connection.version, resumed, steps, completed: true }));
    process.exit(0);
}

async function gateway(connect) {
    const connection = await connect();
    const tools = (await connection.tools()).map((tool) => tool.name);
    const args = { text: 'Grüße', number: 1.5 };
    const result = tools.includes(config.tool) ? await connection.call(config.tool, args) : null;
    await connection.close();
    console.log(JSON.stringify({ protocol_version: connection.version, tools, result }));
    process.exit(0);
}

const RUNS = { first, second, gateway };

/** Plays the run that the configuration selects. */
export async function play(connect) {
    await RUNS[config.run](connect);
}
