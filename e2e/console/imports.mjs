// Imports files and folders in third-party formats in a real browser, publishes them and plays them with a client.
// usage: imports.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of a new installation with one organisation, `acme`; `setup`,
// the path of its setup page; `samples`, absolute paths of files and folders; `waypost`, the executable whose `walk`
// command is the MCP client; `folder`, a folder for its state; `screenshots`, a folder.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { launch, open } from '../browser/browser.mjs';
import { api, endAfter, setUp, showPages } from './console.mjs';

const given = JSON.parse(process.argv[2]);
const run = promisify(execFile);

endAfter(4);

const at = (path) => `${given.url}${path}`;

/** Drops the file or folder at `path` on the page, like a file manager does. */
async function drop(page, path) {
    const box = await page.locator('[data-drop]').boundingBox();
    const to = { x: box.x + box.width / 2, y: box.y + 20 };
    const devtools = await page.context().newCDPSession(page);
    const data = { items: [], files: [path], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) await devtools.send('Input.dispatchDragEvent', { type, ...to, data });
    await devtools.detach();
}

/** Selects the file or folder at `path` with the page's buttons. */
async function select(page, path) {
    await page.locator(statSync(path).isDirectory() ? '#f-folder' : '#f-file').setInputFiles(path);
}

/** Imports a sample, publishes it on its own server and plays it to the end. */
async function imports(page, path, number, provide) {
    const slug = `sample-${number}`;
    const server = await api(page, 'POST', '/servers', { name: `Sample ${number}`, slug });
    await page.goto(at('/o/acme/walkthroughs/import'));
    await provide(page, path);
    await page.locator('[data-options]:visible').waitFor();
    await page.locator('#f-title').fill(`Sample ${number}`);
    await page.locator('#f-server').selectOption(server.id);
    await page.locator('#f-publish').check();
    const card = page.locator('[data-report] .card', { hasText: 'It will be published as version 1.' });
    await card.waitFor();
    if (number === 1) await page.screenshot({ path: join(given.screenshots, 'import-report.png'), fullPage: true });
    await card.getByRole('button', { name: 'Import', exact: true }).click();
    await page.waitForURL(/\/walkthroughs\/wt_/);
    const { stdout } = await run(given.waypost, ['walk', at(`/s/${slug}/mcp`), '--yes', '--json'], { env: { ...process.env, XDG_STATE_HOME: join(given.folder, slug) } });
    console.log(`${path}: ${stdout.trim()}`);
}

const browser = await launch(given.chromium);
try {
    const page = await open(browser);
    await setUp(page, given.url + given.setup);
    let number = 0;
    for (const path of given.samples) {
        for (const provide of [drop, select]) await imports(page, path, number += 1, provide);
    }
    // A folder without importable files is rejected with a message.
    await page.goto(at('/o/acme/walkthroughs/import'));
    await drop(page, given.folder);
    await page.locator('[data-report] [role="alert"]').waitFor();
    assert.deepEqual(page.problems.filter((problem) => !/status of 4/.test(problem)), []);
} catch (error) {
    await showPages(browser, given.screenshots, 'failed-import');
    throw error;
} finally {
    await browser.close();
}
