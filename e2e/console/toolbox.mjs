// Adds a toolbox, deploys a tool server, calls a tool, follows the log, stops and deletes the server, in a real browser.
// usage: toolbox.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of a new installation with one organisation, `acme`, whose
// catalogue has the entry `echo`; `setup`, the path of its setup page; `waypost`, the executable that joins and runs the
// machine; `docker`, the address of the container engine; `data` and `secrets`, the folders of the machine;
// `screenshots`, a folder.
//
// Every visited page is checked on a phone and a desktop, in the light and dark scheme, with axe-core.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { launch, open } from '../browser/browser.mjs';
import { Looker } from '../browser/look.mjs';
import { endAfter, setUp, showPages } from './console.mjs';

const given = JSON.parse(process.argv[2]);
const look = new Looker(given.screenshots, 'toolbox');
const at = (path) => `${given.url}/o/acme/${path}`;

endAfter(5);

/** Loads a page of the organisation and checks it. */
async function see(page, name, path) {
    if (path) await page.goto(at(path));
    await look.at(page, name);
}

/** Starts `waypost toolbox ACTION` on the machine. */
function machine(action, ...args) {
    return spawn(given.waypost, ['toolbox', action, '--data-dir', given.data, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
}

/** Adds a toolbox, joins the machine with the token of the displayed command, and starts its daemon. */
async function addToolbox(page) {
    await see(page, 'toolboxes-empty', 'toolboxes');
    await page.getByLabel('Name', { exact: true }).fill('office');
    await page.getByRole('button', { name: 'Add toolbox' }).click();
    await page.getByText('Waiting for the machine').waitFor();
    await see(page, 'toolbox-new');
    const token = (await page.locator('main').innerText()).match(/wpt_[\w-]+/)[0];
    const join = machine('join', '--url', given.url, '--token-file', '-');
    join.stdin.end(token);
    assert.deepEqual(await once(join, 'exit'), [0, null]);
    const daemon = machine('run', '--docker-host', given.docker, '--secrets-dir', given.secrets);
    // The page shows it without being reloaded.
    await page.getByText('The machine is connected').waitFor();
    return daemon;
}

/** Creates a secret, replaces its value, and deletes it. No page shows a value. */
async function keepSecret(page) {
    await see(page, 'secrets-empty', 'secrets');
    const enter = async (value, button, message) => {
        await page.getByLabel('Value', { exact: true }).fill(value);
        await page.getByRole('button', { name: button }).click();
        await page.getByText(message).waitFor();
        assert(!(await page.content()).includes(value));
    };
    await page.getByLabel('Name', { exact: true }).fill('SERVICE_KEY');
    await enter('first-planted-value', 'Create secret', 'Secret created');
    await see(page, 'secrets');
    await page.getByRole('link', { name: 'SERVICE_KEY' }).click();
    await enter('second-planted-value', 'Replace value', 'Value replaced');
    await see(page, 'secret');
    await page.getByRole('button', { name: 'Delete secret' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete secret' }).click();
    await page.getByText('Secret deleted').waitFor();
}

async function deploy(page) {
    await see(page, 'instances-empty', 'instances');
    await page.goto(at('instances/new'));
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.getByLabel('Slug').fill('echo');
    await see(page, 'instance-new');
    await page.getByRole('button', { name: 'Deploy', exact: true }).click();
    await page.waitForURL(/\/instances\/ins_/);
    const id = page.url().match(/ins_[0-9a-z]+/)[0];
    await page.locator('.badge', { hasText: 'complete' }).waitFor();
    await page.locator('.head .badge', { hasText: 'running' }).waitFor();
    await see(page, 'instance');
    return id;
}

async function useTool(page, id) {
    await page.goto(at(`instances/${id}/tools`));
    await page.getByLabel('Tool', { exact: true }).selectOption('echo');
    await page.getByLabel('Arguments (JSON)').fill('{"text": "hello from the browser"}');
    await page.getByRole('button', { name: 'Call', exact: true }).click();
    await page.locator('#tools-output', { hasText: 'hello from the browser' }).waitFor();
    await see(page, 'instance-tools');
}

/** Follows the log in one page while another calls a tool that writes to it. */
async function followLog(page, other, id) {
    await page.goto(at(`instances/${id}/logs`));
    await page.getByRole('button', { name: 'Follow', exact: true }).click();
    await page.getByText('Following the log').waitFor();
    await other.goto(at(`instances/${id}/tools`));
    await other.getByLabel('Tool', { exact: true }).selectOption('log');
    for (const text of ['first line', 'second line']) {
        await other.getByLabel('Arguments (JSON)').fill(JSON.stringify({ text }));
        await other.getByRole('button', { name: 'Call', exact: true }).click();
        await page.locator('.log-text', { hasText: text }).waitFor();
    }
    await page.getByLabel('Search').fill('second');
    await page.getByText(/1 of \d+ lines match/).waitFor();
    await see(page, 'instance-logs');
}

async function stopAndDelete(page, id) {
    for (const [name, path] of [['instance-history', 'history'], ['instance-events', 'events'], ['instance-deployments', 'deployments'], ['instance-configuration', 'configuration']]) {
        await see(page, name, `instances/${id}/${path}`);
    }
    await see(page, 'instances', 'instances');
    await see(page, 'toolboxes', 'toolboxes');
    await page.goto(at(`instances/${id}`));
    await page.getByRole('button', { name: 'Stop', exact: true }).first().click();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop', exact: true }).click();
    await page.locator('.head .badge', { hasText: 'stopped' }).waitFor();
    await page.getByRole('button', { name: 'Delete', exact: true }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete instance' }).click();
    await page.goto(at('instances'));
    await page.getByText('echo').first().waitFor({ state: 'detached' });
}

const browser = await launch(given.chromium);
let daemon;
try {
    const page = await open(browser);
    await setUp(page, given.url + given.setup);
    await keepSecret(page);
    daemon = await addToolbox(page);
    const id = await deploy(page);
    await useTool(page, id);
    const other = await page.context().newPage();
    await followLog(page, other, id);
    await other.close();
    await stopAndDelete(page, id);
    assert.deepEqual(page.problems, []);
    console.log(`checked ${look.seen.length} pages: ${look.seen.join(', ')}`);
} catch (error) {
    await showPages(browser, given.screenshots, 'toolbox-failed');
    throw error;
} finally {
    await browser.close();
    if (daemon) {
        daemon.kill('SIGTERM');
        await once(daemon, 'exit');
    }
}
