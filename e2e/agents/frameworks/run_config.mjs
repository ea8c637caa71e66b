// The JSON argument of each script, described in run_config.py.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const config = JSON.parse(process.argv[2]);
export const headers = config.token ? { Authorization: `Bearer ${config.token}` } : {};
// Nothing listens on this port: the test returns the URL to which the browser was redirected.
export const REDIRECT = 'http://127.0.0.1:33419/callback';
// More turns than any plan has.
export const TURNS = 40;

/** The data that the client stores between its processes. */
export const store = {
    get(name) {
        const file = join(config.state, `${name}.json`);
        return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) ?? undefined) : undefined;
    },
    set: (name, value) => writeFileSync(join(config.state, `${name}.json`), JSON.stringify(value ?? null)),
};

/** Signs in as the simulated user. Returns the query parameters of the redirect to the client. */
export async function signIn(url) {
    const response = await fetch(`${config.user}/drive?${new URLSearchParams({ url })}`);
    const text = await response.text();
    if (!response.ok) {
        throw new Error(text);
    }
    return new URL(text).searchParams;
}

/** Opens a page as a browser does: the user signs in, and the browser is redirected to the client. */
export async function open(url) {
    const response = await fetch(`${config.user}/open?${new URLSearchParams({ url })}`);
    if (!response.ok) {
        throw new Error(await response.text());
    }
}
