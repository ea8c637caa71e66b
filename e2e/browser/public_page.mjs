// A first-time visitor of a server's public page. usage: public_page.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url`, the origin; `screenshots`, a folder. The installation has the
// servers `rockets` and `other` without sign-in, `members` with sign-in, and `hidden` with sign-in on connect.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { launch, open } from './browser.mjs';
import { Looker } from './look.mjs';

const given = JSON.parse(process.argv[2]);
const MAX_BYTES = 200_000;
setTimeout(() => {
    console.error('the scenario did not finish within two minutes');
    process.exit(1);
}, 120_000).unref();

/** Runs a client process with the URL and terminates it after `steps` steps. Returns its output. */
async function play(url, steps) {
    const program = fileURLToPath(new URL('../clients/personal.mjs', import.meta.url));
    const child = spawn(process.execPath, [program, url, String(steps)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const output = [];
    for await (const line of createInterface({ input: child.stdout })) {
        if (line === 'waiting') break;
        output.push(JSON.parse(line));
    }
    assert.equal(output.length, steps + 1, 'the client printed the start and every step');
    assert.equal(child.exitCode, null, 'the client is still running');
    child.kill('SIGKILL');
    const [code, signal] = await once(child, 'exit');
    assert.deepEqual([code, signal], [null, 'SIGKILL'], 'the client was terminated');
    return output;
}

const path = (slug) => `${given.url}/s/${slug}`;
const shown = (page) => page.locator('#url').innerText();

/** Returns the text that the copy button of a snippet puts on the clipboard. */
async function copied(page, client) {
    await page.evaluate(() => navigator.clipboard.writeText('nothing'));
    const panel = page.locator(`[data-client="${client}"]`);
    await panel.locator('button[data-copy]').first().click();
    await page.getByText('Copied.', { exact: true }).waitFor({ state: 'attached' });
    return page.evaluate(() => navigator.clipboard.readText());
}

const browser = await launch(given.chromium);
const look = new Looker(given.screenshots, 'public-page');
try {
    const page = await open(browser);
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write'], { origin: given.url });
    let bytes = 0;
    page.on('response', async (response) => { bytes += (await response.body().catch(() => '')).length; });
    const response = await page.goto(path('rockets'));
    await page.waitForLoadState('networkidle');
    assert.equal(response.status(), 200);
    assert.ok(bytes > 0 && bytes < MAX_BYTES, `${bytes} bytes`);
    for (const text of ['Acme Rockets', 'Waypost in ten minutes', '8 steps', 'works only on this machine']) {
        await page.getByText(text).first().waitFor();
    }
    await look.at(page, 'open');

    // Copies the command of the recommended client.
    const command = await copied(page, 'claude-code');
    const [, url] = command.match(/^claude mcp add --transport http rockets (http:\S+)$/) ?? assert.fail(command);
    assert.match(url, /\/s\/rockets\/t\/pu_[0-9a-z]{26}\/mcp$/);

    const first = await play(url, 3);
    assert.deepEqual(first.map(({ position }) => position), [1, 2, 3, 4]);
    assert.ok(first.every(({ progress_handle: handle }) => handle === null), 'only the URL identifies the user');
    const [again] = await play(url, 0);
    assert.deepEqual([again.position, again.completed], [4, 3], 'a new client continues at step four');

    // The instructions for other clients contain the same URL, selected with the keyboard and on a second visit.
    await page.getByRole('radio', { name: 'Claude Code' }).focus();
    await page.keyboard.press('ArrowLeft');
    assert.equal(await page.getByRole('radio', { name: 'Other clients' }).isChecked(), true);
    assert.equal(await copied(page, 'json'), url);
    await page.reload();
    assert.equal(await shown(page), url, 'the second visit');
    await page.getByText('Codex', { exact: true }).first().click();
    const [, toml] = (await page.locator('[data-client="codex"] code').nth(1).innerText()).split('\n');
    assert.equal(toml, `url = "${url}"`);
    const mcp = await page.goto(`${path('rockets')}/mcp`);
    assert.equal(mcp.headers()['content-type'], 'text/html; charset=utf-8', 'a browser at the MCP URL');
    assert.equal(await shown(page), url);

    // Another visitor, and another server on the same host.
    const visitor = await open(browser);
    await visitor.goto(path('rockets'));
    assert.notEqual(await shown(visitor), url, 'another visitor');
    await visitor.goto(url);
    assert.notEqual(await shown(visitor), url, 'opening a personal URL in a browser shows the visitor\'s own URL');
    await page.goto(path('other'));
    const other = await shown(page);
    assert.ok(other.startsWith(`${path('other')}/t/pu_`) && !other.includes(url.split('/t/')[1]), other);
    const names = (await page.context().cookies()).map(({ name, path, httpOnly, sameSite }) => [name, path, httpOnly, sameSite]);
    assert.deepEqual(names.sort(), [
        ['wp_personal', '/s/other', true, 'Lax'],
        ['wp_personal', '/s/rockets', true, 'Lax'],
    ]);
    assert.equal(await page.evaluate(() => document.cookie), '', 'scripts cannot read the cookies');

    // Servers with sign-in.
    await page.goto(path('members'));
    assert.equal(await shown(page), `${path('members')}/mcp`);
    await look.at(page, 'sign-in');
    await page.goto(path('hidden'));
    assert.equal(await page.getByText('Waypost in ten minutes').count(), 0);
    const missing = await page.goto(path('missing'));
    assert.equal(missing.status(), 404);
    await look.at(page, 'missing');
    assert.deepEqual(page.problems, []);

    // Without JavaScript: all content is visible, the client can be selected, and no button is shown.
    const context = await browser.newContext({ javaScriptEnabled: false, viewport: { width: 375, height: 812 } });
    const plain = await context.newPage();
    await plain.goto(path('rockets'));
    assert.equal(await plain.locator('[data-client]:visible').count(), 1);
    await plain.getByText('Gemini CLI', { exact: true }).first().click();
    const panel = plain.locator('[data-client]:visible');
    assert.equal(await panel.getAttribute('data-client'), 'gemini-cli');
    assert.match(await panel.locator('code').first().innerText(), /^gemini mcp add .*\/t\/pu_/);
    assert.equal(await plain.locator('button:visible').count(), 0);
} finally {
    await browser.close();
}
