// The argument of each script: see given.py, which has the same for Python.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const given = JSON.parse(process.argv[2]);
export const headers = given.token ? { Authorization: `Bearer ${given.token}` } : {};
// Nothing listens there: the test says where the browser was redirected to.
export const REDIRECT = 'http://127.0.0.1:33419/callback';
// The plan of the test has fewer turns.
export const TURNS = 40;

/** Values that the client keeps between its processes. */
export const store = {
    get(name) {
        const file = join(given.state, `${name}.json`);
        return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) ?? undefined) : undefined;
    },
    set: (name, value) => writeFileSync(join(given.state, `${name}.json`), JSON.stringify(value ?? null)),
};

/** Signs in as the test's user; returns the parameters with which the browser was redirected to the client. */
export async function signIn(url) {
    const answer = await fetch(`${given.user}/drive?${new URLSearchParams({ url })}`);
    const text = await answer.text();
    if (!answer.ok) {
        throw new Error(text);
    }
    return new URL(text).searchParams;
}

/** Opens a page as a browser does: the user signs in, and the browser is redirected to where the client listens. */
export async function open(url) {
    const answer = await fetch(`${given.user}/open?${new URLSearchParams({ url })}`);
    if (!answer.ok) {
        throw new Error(await answer.text());
    }
}
