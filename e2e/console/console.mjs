// Helpers of the console scenarios: the first owner, API and MCP tool calls, and output on failure.

import assert from 'node:assert/strict';

export const EMAIL = 'anna@example.com';
export const PASSWORD = 'quartz-banjo-umbrella-42';

/** Ends the process after a number of minutes, so that a hanging browser does not block a build. */
export function endAfter(minutes) {
    setTimeout(() => {
        console.error(`the scenario did not finish within ${minutes} minutes`);
        process.exit(1);
    }, minutes * 60_000).unref();
}

/** Creates the account of the first owner on the setup page `url`. */
export async function setUp(page, url) {
    await page.goto(url);
    await page.locator('input[name="name"]').fill('Anna');
    await page.locator('input[name="email"]').fill(EMAIL);
    await page.locator('input[name="password"]').fill(PASSWORD);
    await page.locator('main button[type="submit"]').click();
    await page.waitForURL(/\/o\//);
}

/** Fills in and submits the open sign-in page. */
export async function signIn(page) {
    await page.locator('input[name="email"]').fill(EMAIL);
    await page.locator('input[name="password"]').fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

/** Calls the API from a script of the page. Throws if the call is rejected. */
export async function api(page, method, path, body) {
    return page.evaluate(async ([method, path, body]) => {
        const headers = { 'Content-Type': 'application/json', 'Waypost-Organization': document.body.dataset.org };
        const response = await fetch(`/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
        const text = await response.text();
        if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
        return text && JSON.parse(text);
    }, [method, path, body]);
}

/** Calls an MCP tool at `url` from a stateless client. */
export async function tool(url, name, args) {
    const response = await fetch(url, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream', 'MCP-Protocol-Version': '2025-11-25' },
        body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name, arguments: args } }),
    });
    const text = await response.text();
    const line = text.split('\n').find((it) => it.startsWith('data: {'));
    const { result, error } = JSON.parse(line ? line.slice(6) : text);
    assert.ok(result && !result.isError, JSON.stringify(error ?? result));
    return result.structuredContent;
}

/** Waits until `test` passes for the result of `get`. */
export async function until(page, get, test, what) {
    for (let n = 0; n < 100; n += 1) {
        if (test(await get())) return;
        await page.waitForTimeout(100);
    }
    assert.fail(`${what}: ${JSON.stringify(await get(), null, 1)}`);
}

/** Prints every open page and saves screenshots as `NAME-1.png`, … in `folder`. */
export async function showPages(browser, folder, name) {
    const pages = browser.contexts().flatMap((context) => context.pages());
    for (const [at, page] of pages.entries()) {
        const text = await page.locator('body').innerText().catch(() => '');
        await page.screenshot({ path: `${folder}/${name}-${at + 1}.png`, fullPage: true }).catch(() => {});
        console.error(`open: ${page.url()} ${JSON.stringify(page.problems)}\n${text}\n`);
    }
}
