// Two users edit a walkthrough in a real browser. usage: editor.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of a new installation with one organisation; `setup`, the path
// of its setup page; `screenshots`, a folder; `assets`, an optional folder from which the style sheet and scripts are
// loaded, so that changes can be tested without a build.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { launch, open } from '../browser/browser.mjs';
import { Looker } from '../browser/look.mjs';
import { endAfter, setUp, showPages, signIn as sendSignIn } from './console.mjs';

const given = JSON.parse(process.argv[2]);
const look = new Looker(given.screenshots, 'editor');

endAfter(4);

async function serveAssetsFromFolder(page) {
    if (!given.assets) return;
    await page.route('**/assets/*.{js,css}*', (route) => {
        const url = new URL(route.request().url());
        const name = url.pathname.split('/').pop();
        if (name === 'htmx.js') return route.continue();
        const text = readFileSync(join(given.assets, name), 'utf8').replaceAll(/ from "\.\/([^"]+)"/g, ` from "./$1${url.search}"`);
        return route.fulfill({ body: text, contentType: name.endsWith('css') ? 'text/css' : 'text/javascript' });
    });
}

async function newUser(browser, viewport) {
    const page = await open(browser, viewport);
    await serveAssetsFromFolder(page);
    // No animations in screenshots.
    await page.emulateMedia({ reducedMotion: 'reduce' });
    return page;
}

async function signIn(page) {
    await page.goto(`${given.url}/login`);
    await sendSignIn(page);
    await page.waitForURL(/\/o\//);
}

/** Checks the page, scrolled to its top. */
async function see(page, name) {
    await page.evaluate(() => window.scrollTo(0, 0));
    await look.at(page, name);
}

/** Calls the API from a script of the page. */
async function api(page, method, path, body, headers = {}) {
    return page.evaluate(async ([method, path, body, headers]) => {
        const response = await fetch(`/api/v1${path}`, {
            method, headers: { 'Content-Type': 'application/json', ...headers }, body: body && JSON.stringify(body),
        });
        return { status: response.status, body: await response.json().catch(() => null) };
    }, [method, path, body, headers]);
}

const draft = async (page, id) => (await api(page, 'GET', `/walkthroughs/${id}`)).body;
const titles = (page) => page.locator('.step-title').allTextContents();
const field = (page, name) => page.locator(`[data-form] [name="${name}"]`);
const saved = (page) => page.locator('[data-save-status]:visible', { hasText: /^Saved \d/ }).waitFor();
const row = (page, title) => page.locator('.step-open', { has: page.locator('.step-title', { hasText: new RegExp(`^${title}$`) }) });
const said = (page, text) => page.locator('[data-announce]', { hasText: text }).waitFor({ state: 'attached' });

/** Waits until the server's draft passes `test`. */
async function until(page, id, test, what) {
    for (let n = 0; n < 100; n += 1) {
        if (test(await draft(page, id))) return;
        await page.waitForTimeout(100);
    }
    assert.fail(`${what}: ${JSON.stringify(await draft(page, id), null, 1)}`);
}

const of = (whole, title) => whole.steps.find((step) => step.title === title);

/** Writes five steps in two sections. */
async function writesSteps(page, id) {
    await page.goto(`${given.url}/o/acme/walkthroughs/${id}`);
    await page.locator('[data-no-steps] h2').waitFor();
    await see(page, 'empty');
    for (const title of ['One', 'Two', 'Three', 'Four', 'Five']) {
        await page.locator('[data-add]:visible').click();
        await page.waitForFunction(() => document.activeElement?.name === 'title');
        await page.keyboard.type(title);
        await field(page, 'section_title').fill(title === 'One' || title === 'Two' ? 'Begin' : 'Go on');
        await field(page, 'content').fill(`## ${title}\n\nText of **${title}**, with \`code\`.\n\n1. first\n2. second\n`);
    }
    await saved(page);
    await until(page, id, (it) => it.steps.map((step) => step.title).join() === 'One,Two,Three,Four,Five', 'five steps');
    assert.deepEqual(await page.locator('.section-head h3:visible').allTextContents(), ['Begin', 'Go on']);
    assert.match(page.url(), /\?step=ws_/);
}

/** The Markdown toolbar, the preview and the play-through. */
async function showsPreviews(page, id) {
    await row(page, 'One').click();
    const content = field(page, 'content');
    await content.fill('Run make now');
    await content.evaluate((box) => box.setSelectionRange(4, 8));
    await page.getByRole('button', { name: 'Code', exact: true }).click();
    assert.equal(await content.inputValue(), 'Run `make` now');
    await content.press('Control+z');
    assert.equal(await content.inputValue(), 'Run make now');
    await content.evaluate((box) => box.setSelectionRange(4, 8));
    await content.press('Control+b');
    assert.equal(await content.inputValue(), 'Run **make** now');
    await page.locator('[data-read] strong', { hasText: 'make' }).waitFor();
    assert.ok(await content.evaluate((box) => box === document.activeElement), 'the preview does not take the focus');
    // The typed text is kept after leaving the field: the preview shows the served text, and undo still works.
    await content.fill('fast<br>slow <kbd>A</kbd>');
    await page.locator('[data-changes]', { hasText: 'fast<br>slow <kbd>A</kbd>' }).waitFor();
    await page.locator('[data-read] br').waitFor({ state: 'attached' });
    await until(page, id, (it) => of(it, 'One').content === 'fast<br>slow <kbd>A</kbd>', 'the text as it was typed');
    await field(page, 'title').focus();
    await saved(page);
    assert.equal(await content.inputValue(), 'fast<br>slow <kbd>A</kbd>');
    await content.press('Control+z');
    assert.equal(await content.inputValue(), 'Run **make** now');
    await page.locator('[data-changes]').waitFor({ state: 'detached' });
    await field(page, 'introduction_for_agent').fill('Greet the user.');
    await page.getByRole('tab', { name: 'Agent' }).click();
    await page.locator('[data-agent] pre', { hasText: '<intro>\nGreet the user.\n</intro>' }).waitFor();
    await page.locator('[data-agent] pre', { hasText: '"introduction_for_agent": "Greet the user."' }).waitFor();
    await see(page, 'agent');
    await page.getByRole('tab', { name: 'Play through' }).click();
    await page.locator('[data-played]', { hasText: 'select_walkthrough' }).waitFor();
    for (const text of ['Step 2 of 5', 'Step 3 of 5', 'Step 4 of 5', 'Step 5 of 5', 'All 5 steps completed']) {
        await page.getByRole('button', { name: 'Next' }).click();
        await page.locator('[data-played]', { hasText: text }).waitFor();
    }
    await see(page, 'played');
    await page.getByRole('button', { name: 'Restart' }).click();
    await page.locator('[data-played]', { hasText: 'Step 1 of 5' }).waitFor();
    await page.getByRole('tab', { name: 'User' }).click();
    await saved(page);
    await until(page, id, (it) => of(it, 'One').content === 'Run **make** now', 'the content');
}

async function center(locator) {
    const box = await locator.boundingBox();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2, ...box };
}

/** Reorders by mouse and keyboard; duplicates, deletes and restores a step. */
async function reordersSteps(page, id) {
    await page.setViewportSize({ width: 1280, height: 1000 });
    const from = await center(row(page, 'Five'));
    const to = await center(row(page, 'One'));
    await page.mouse.move(from.x, from.y);
    await page.mouse.down();
    await page.mouse.move(from.x, from.y - 20, { steps: 3 });
    await page.mouse.move(to.x, to.y - to.height / 4, { steps: 6 });
    assert.equal(await page.locator('.drop-before').count(), 1, 'a line shows the drop position');
    await page.screenshot({ path: join(given.screenshots, 'editor-drag.png') });
    await page.mouse.up();
    assert.deepEqual(await titles(page), ['Five', 'One', 'Two', 'Three', 'Four']);
    await said(page, 'Five: now step 1 of 5, in section Begin.');
    await until(page, id, (it) => it.steps[0].title === 'Five' && it.steps[0].section_title === 'Begin', 'dragged');

    await row(page, 'Five').focus();
    await page.keyboard.press('Alt+ArrowDown');
    await page.keyboard.press('Alt+ArrowDown');
    assert.deepEqual(await titles(page), ['One', 'Two', 'Five', 'Three', 'Four']);
    assert.ok(await row(page, 'Five').evaluate((it) => it === document.activeElement), 'the focus moves with the step');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    assert.equal(await field(page, 'title').inputValue(), 'Three');
    await page.locator('.chosen [data-tool="Move up"]').click();
    assert.deepEqual(await titles(page), ['One', 'Two', 'Three', 'Five', 'Four']);

    await page.locator('.chosen [data-tool="Duplicate"]').click();
    await row(page, 'Three \\(copy\\)').waitFor();
    const { steps } = await draft(page, id);
    const copy = steps.find((step) => step.title === 'Three (copy)');
    await page.locator('.chosen [data-tool="Delete"]').click();
    await page.locator('.toast', { hasText: 'was deleted' }).waitFor();
    await until(page, id, (it) => it.steps.length === 5, 'deleted');
    await page.locator('.toast').getByRole('button', { name: 'Undo' }).click();
    await until(page, id, (it) => it.steps[3]?.id === copy.id, 'restored with its ID at its position');
    await row(page, 'Three \\(copy\\)').focus();
    await page.keyboard.press('Delete');
    assert.ok(await row(page, 'Five').evaluate((it) => it === document.activeElement), 'the focus moves to the next step');
    await until(page, id, (it) => it.steps.length === 5, 'deleted again');
    await page.locator('[data-trash] summary').click();
    await see(page, 'deleted');
    for (const close of await page.locator('.toast [aria-label="Dismiss"]').all()) await close.click();

    await page.getByRole('button', { name: 'Rename section Begin' }).first().click();
    await page.keyboard.type('Start');
    await page.keyboard.press('Enter');
    await until(page, id, (it) => it.steps.filter((step) => step.section_title === 'Start').length >= 2, 'renamed');
    await see(page, 'filled');
}

/** The details of the walkthrough, and the missing fields for its type. */
async function editsDetails(page, id) {
    await page.locator('#walkthrough-title').fill('Rockets for everybody');
    await page.getByRole('button', { name: 'Details' }).click();
    await see(page, 'details');
    await page.locator('#d-type').selectOption('integration');
    await page.locator('#d-minutes').fill('12');
    await page.locator('#d-tags').fill('rockets, launch');
    await page.locator('#details button[type="submit"]').click();
    await page.locator('#details').waitFor({ state: 'hidden' });
    await until(page, id, (it) => it.title === 'Rockets for everybody' && it.type === 'integration' &&
        it.estimated_duration_minutes === 12 && it.tags.join() === 'rockets,launch', 'details');
    await page.locator('.step-marks', { hasText: 'Missing: context, operations' }).first().waitFor();
    await row(page, 'Three').click();
    await field(page, 'title').fill('');
    await page.locator('#s-title-error', { hasText: 'Write a title' }).waitFor();
    await page.locator('[data-save-status]', { hasText: 'Not saved: see the marked field' }).waitFor();
    await see(page, 'rejected');
    await field(page, 'title').fill('Three');
    await saved(page);
}

/** Two users in the same step: changes of different fields are merged; the same field becomes a conflict. */
async function resolvesConflicts(page, other, id) {
    await signIn(other);
    await other.goto(page.url());
    await other.waitForFunction(() => document.querySelector('[data-form]')?.hidden === false);
    assert.equal(await field(other, 'title').inputValue(), 'Three', 'the URL contains the step');

    await field(page, 'context_for_agent').fill('From Anna');
    await field(other, 'operations_for_agent').fill('From Ben');
    await until(page, id, (it) => of(it, 'Three').context_for_agent === 'From Anna' && of(it, 'Three').operations_for_agent === 'From Ben', 'both');

    const both = async (mine, theirs) => {
        await field(page, 'content').focus();
        await field(other, 'content').focus();
        await Promise.all([page, other].map((it) => it.context().setOffline(true)));
        await field(page, 'content').fill(mine);
        await field(other, 'content').fill(theirs);
        await page.context().setOffline(false);
        await until(page, id, (it) => of(it, 'Three').content === mine, 'the first is saved');
        await other.context().setOffline(false);
        await other.locator('.conflict').waitFor();
    };
    await both('The rocket is red.\n\nLight it.', 'The rocket is blue.\n\nLight it.');
    assert.equal(await field(other, 'content').inputValue(), 'The rocket is blue.\n\nLight it.', 'typing is not disturbed');
    assert.equal(await other.locator('.version del').textContent(), 'blue');
    assert.equal(await other.locator('.version ins').textContent(), 'red');
    assert.equal(of(await draft(page, id), 'Three').content, 'The rocket is red.\n\nLight it.', 'nothing is overwritten');
    await see(other, 'conflict');
    await field(other, 'content').fill('The rocket is blue and fast.\n\nLight it.');
    await other.getByRole('button', { name: 'Merge both' }).click();
    await other.locator('#conflict-content-merged').fill('The rocket is red and blue.\n\nLight it.');
    await other.getByRole('button', { name: 'Save merged text' }).click();
    await until(page, id, (it) => of(it, 'Three').content === 'The rocket is red and blue.\n\nLight it.', 'merged');
    await other.locator('.conflict').waitFor({ state: 'detached' });
    await field(page, 'title').focus();
    await page.waitForFunction(() => document.querySelector('[name="content"]').value.includes('red and blue'), null, { timeout: 15_000 });

    await both('Mine', 'Theirs');
    await other.getByRole('button', { name: 'Use the other version' }).click();
    assert.equal(await field(other, 'content').inputValue(), 'Mine');
    await both('Mine again', 'Theirs again');
    await other.getByRole('button', { name: 'Keep my version' }).click();
    await until(page, id, (it) => of(it, 'Three').content === 'Theirs again', 'kept');

    // One user deletes the step that the other is editing.
    await row(page, 'Three').focus();
    await page.waitForFunction(() => document.querySelector('[name="content"]').value === 'Theirs again');
    await other.context().setOffline(true);
    await field(other, 'content').fill('Do not lose this');
    await page.keyboard.press('Delete');
    await until(page, id, (it) => !of(it, 'Three'), 'deleted');
    await other.context().setOffline(false);
    await other.getByText('Another user deleted this step').first().waitFor();
    await see(other, 'deleted-by-other');
    await other.getByRole('button', { name: 'Restore the step with my text' }).click();
    await until(page, id, (it) => of(it, 'Three')?.content === 'Do not lose this', 'restored with the text');
    await saved(other);
}

/** Nothing is lost if the connection fails, the page is reloaded or the session expires. */
async function survivesFailures(page, id) {
    await row(page, 'Two').click();
    await page.context().setOffline(true);
    await field(page, 'content').fill('Written in a tunnel');
    await page.locator('[data-save-status]', { hasText: 'Not saved: offline, retrying' }).waitFor();
    await page.locator('.banner', { hasText: 'kept in this browser' }).waitFor();
    await see(page, 'offline');
    await page.context().setOffline(false);
    await page.getByRole('button', { name: 'Retry now' }).click({ timeout: 2_000 }).catch(() => {});
    await until(page, id, (it) => of(it, 'Two').content === 'Written in a tunnel', 'saved after reconnecting');
    await saved(page);

    // The server rejects every change, and the page is reloaded.
    await page.route('**/api/v1/**', (route) => (route.request().method() === 'PATCH' ? route.fulfill({ status: 503, body: '{}' }) : route.continue()));
    await field(page, 'content').fill('Written before a reload');
    await page.locator('[data-save-status]', { hasText: 'Not saved' }).waitFor();
    page.once('dialog', (dialog) => dialog.accept());
    await page.reload();
    await page.unroute('**/api/v1/**');
    await page.locator('.toast', { hasText: 'restored: “Two”' }).waitFor();
    await until(page, id, (it) => of(it, 'Two').content === 'Written before a reload', 'restored');
    await saved(page);
    assert.equal(await page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith('waypost.text')).length), 0);

    const cookies = await page.context().cookies();
    await page.context().clearCookies();
    await field(page, 'content').fill('Written without a session');
    await page.locator('.banner', { hasText: 'Your session has expired' }).waitFor();
    await see(page, 'signed-out');
    await page.context().addCookies(cookies);
    await page.evaluate(() => window.dispatchEvent(new Event('focus')));
    await until(page, id, (it) => of(it, 'Two').content === 'Written without a session', 'after the sign-in');
    await saved(page);
}

/** On a phone, the panes are three separate views. */
async function worksOnPhone(page, id) {
    await page.setViewportSize({ width: 375, height: 812 });
    await page.goto(`${given.url}/o/acme/walkthroughs/${id}`);
    await page.locator('.step-open').first().waitFor();
    await row(page, 'Two').click();
    await field(page, 'content').waitFor();
    await page.screenshot({ path: join(given.screenshots, 'editor-phone-edit.png') });
    await page.locator('[data-pane="preview"]').click();
    await page.locator('[data-read] h3', { hasText: 'Two' }).waitFor();
    await page.screenshot({ path: join(given.screenshots, 'editor-phone-preview.png') });
    await page.locator('[data-pane="steps"]').click();
    await page.locator('.chosen [data-tool="Move down"]').click();
    await saved(page);
}

/** Undo after a reload, the step history, and deleted steps. */
async function keepsHistory(page, id) {
    await page.goto(`${given.url}${new URL(page.url()).pathname}`);
    await page.locator('[data-add]:visible').first().click();
    // Until the new step is open, the fields belong to another step.
    await page.waitForFunction(() => document.activeElement?.name === 'title');
    await field(page, 'title').fill('Remembered');
    await field(page, 'content').fill('As it was');
    await until(page, id, (it) => it.steps.some((step) => step.content === 'As it was'), 'written');
    await field(page, 'title').fill('Renamed');
    await field(page, 'context_for_agent').fill('Oops');
    await until(page, id, (it) => it.steps.some((step) => step.title === 'Renamed' && step.context_for_agent === 'Oops'), 'written');
    await page.reload();
    await field(page, 'context_for_agent').waitFor();
    await page.getByRole('button', { name: 'Undo', exact: true }).click();
    assert.equal(await field(page, 'context_for_agent').inputValue(), '');
    await field(page, 'title').press('Control+z');
    assert.equal(await field(page, 'title').inputValue(), 'Remembered');
    await page.getByRole('button', { name: 'Redo', exact: true }).click();
    assert.equal(await field(page, 'title').inputValue(), 'Renamed');
    await until(page, id, (it) => it.steps.some((step) => step.title === 'Renamed' && step.context_for_agent === null), 'undone');

    await page.locator('[data-history] summary').first().click();
    const added = page.locator('[data-history] [data-revision="1"]');
    await added.getByText('Added by').waitFor();
    const edited = page.locator('[data-history] [data-revision="2"]');
    await edited.getByText('Show changes').click();
    await edited.locator('.history-diff ins', { hasText: 'As it was' }).waitFor();
    await see(page, 'history');
    await added.getByRole('button', { name: 'Restore revision 1' }).click();
    await page.locator('[data-history] [data-revision="3"]', { hasText: 'Restored from 1' }).waitFor();
    assert.deepEqual([await field(page, 'title').inputValue(), await field(page, 'content').inputValue()], ['New step', '']);
    await page.getByRole('button', { name: 'Restore revision 2' }).click();
    await until(page, id, (it) => it.steps.some((step) => step.title === 'Renamed' && step.content === 'As it was'), 'restored');

    // A deleted step can also be restored after a reload.
    const step = new URL(page.url()).searchParams.get('step');
    assert.equal((await api(page, 'DELETE', `/walkthroughs/${id}/steps/${step}`)).status, 200);
    await page.reload();
    await page.locator('[data-trash] summary').click();
    await page.getByRole('button', { name: 'Restore Renamed' }).click();
    await until(page, id, (it) => it.steps.some((own) => own.id === step && own.content === 'As it was'), 'restored again');
    assert.equal((await api(page, 'DELETE', `/walkthroughs/${id}/steps/${step}`)).status, 200);
}

const browser = await launch(given.chromium);
try {
    const page = await newUser(browser);
    await setUp(page, given.url + given.setup);
    const created = await api(page, 'POST', '/walkthroughs', { title: 'Launch a rocket', type: 'course' });
    assert.equal(created.status, 201, JSON.stringify(created.body));
    const { id } = created.body;
    const other = await newUser(browser);
    const scenarios = { writesSteps, showsPreviews, reordersSteps, editsDetails, resolvesConflicts, survivesFailures, keepsHistory, worksOnPhone };
    for (const [name, scenario] of Object.entries(scenarios)) {
        await (scenario.length === 3 ? scenario(page, other, id) : scenario(page, id));
        console.log(`${name}: ok`);
    }
    for (const it of [page, other]) {
        // The browser also reports requests that the scenario itself interrupted or that are rejected as expected.
        const unexpected = it.problems.filter((problem) => !/net::ERR_|status of (401|412|422|503|404)/.test(problem));
        assert.deepEqual(unexpected, []);
    }
} catch (error) {
    await showPages(browser, given.screenshots, 'failed');
    throw error;
} finally {
    await browser.close();
}
