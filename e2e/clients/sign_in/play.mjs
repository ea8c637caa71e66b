// One walkthrough, played to the end by a signed-in user of a client that the caller brings, in two runs: the first is
// killed in the middle, the second goes on where it was. A connection is `{ version, call(name, arguments), close() }`.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The script's only argument, JSON: the server's `url`; `on_connect`, whether it wants a sign-in at once; the `era` to
 * speak; `user`, the origin of who signs in (tests/support/user.rs); `state`, a folder for what the client keeps; the
 * `run`, `first` or `second`; `document`, the URL of the client's metadata document, or null when it is to register
 * itself.
 */
export const given = JSON.parse(process.argv[2]);

// A client that waits for ever must not hold up a build.
setTimeout(() => {
    console.error('the walkthrough was not played within three minutes');
    process.exit(1);
}, 180_000);

/** Where the client would have the user's browser sent, once signed in: the address, after the sign-in. */
export async function signIn(url) {
    const answer = await fetch(`${given.user}/drive?${new URLSearchParams({ url })}`);
    const text = await answer.text();
    assert.ok(answer.ok, text);
    return new URL(text);
}

/** What makes clients that open a browser open ours. */
export function browser() {
    const script = fileURLToPath(new URL('browser.mjs', import.meta.url));
    return { BROWSER: `${process.execPath} ${script}`, SIGN_IN_USER: given.user, PATH: process.env.PATH };
}

/** A port that was free at the first run, for the client to listen on; the same in both runs. */
export async function port() {
    const file = join(given.state, 'port');
    if (!existsSync(file)) {
        const server = createServer();
        await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
        writeFileSync(file, String(server.address().port));
        await new Promise((resolve) => server.close(resolve));
    }
    return Number(readFileSync(file, 'utf8'));
}

async function signIns() {
    const answer = await fetch(`${given.user}/sign-ins`);
    return Number(await answer.text());
}

async function called(connection, name, args) {
    const result = await connection.call(name, args);
    assert.ok(!result.isError, `${name}: ${JSON.stringify(result)}`);
    return result.structuredContent;
}

async function next(connection, id, step, completed) {
    const result = await called(connection, 'next_walkthrough_step', { walkthrough_id: id, current_step_id: step });
    assert.equal(result.completed_step_id, step);
    assert.equal(result.progress.completed, completed);
    assert.equal(result.progress_handle, null, 'who is signed in needs no handle');
    return result;
}

async function first(connect) {
    const connection = await connect();
    const { walkthroughs } = await called(connection, 'list_walkthroughs', {});
    const { id, step_count: total, status } = walkthroughs[0];
    assert.equal(status, 'not_started');
    assert.equal(await signIns(), given.on_connect ? 1 : 0, 'connecting and listing need a sign-in only on_connect');
    let result = await called(connection, 'select_walkthrough', { walkthrough_id: id });
    assert.equal(await signIns(), 1, 'starting does');
    const half = Math.floor(total / 2);
    for (let done = 1; done <= half; done += 1) {
        result = await next(connection, id, result.step.id, done);
    }
    console.log(JSON.stringify({ protocol_version: connection.version, at: result.step.id, completed: half }));
    // Until it is killed.
    await new Promise(() => {});
}

async function second(connect) {
    const connection = await connect();
    const { walkthroughs } = await called(connection, 'list_walkthroughs', {});
    const { id, step_count: total, status } = walkthroughs[0];
    assert.equal(status, 'in_progress', 'a client that has a token is known when it lists');
    let result = await called(connection, 'select_walkthrough', { walkthrough_id: id });
    const resumed = result.step.id;
    let steps = result.progress.completed;
    while (result.step !== null) {
        steps += 1;
        result = await next(connection, id, result.step.id, steps);
    }
    assert.equal(steps, total, 'as many steps as the list said');
    const end = await called(connection, 'get_walkthrough_status', { walkthrough_id: id });
    assert.equal(end.progress.status, 'completed');
    await connection.close();
    console.log(JSON.stringify({ protocol_version: connection.version, resumed, steps, completed: true }));
    process.exit(0);
}

/** Plays the run that the script was asked for. */
export async function play(connect) {
    await (given.run === 'first' ? first : second)(connect);
}
