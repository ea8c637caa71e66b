// Forms submitted after the session has expired, in a real browser: no input is lost. usage: forms.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of a new installation with one organisation; `setup`, the path
// of its setup page; `screenshots`, a folder.

import assert from 'node:assert/strict';
import { launch, open } from '../browser/browser.mjs';
import { api, endAfter, setUp, showPages, signIn, tool } from './console.mjs';

const given = JSON.parse(process.argv[2]);

endAfter(4);

/** Signs in with another browser and ends all other sessions there: the cookie is still sent but is no longer valid. */
async function revoke(page) {
    const other = await open(page.context().browser());
    await other.goto(`${given.url}/login`);
    await signIn(other);
    await other.waitForURL(/\/o\//);
    await other.goto(`${given.url}/account`);
    await other.getByRole('button', { name: 'Sign out other sessions' }).click();
    await other.locator('[data-flash]').waitFor();
    await other.context().close();
    assert.ok((await page.context().cookies()).some((cookie) => cookie.name === '__Host-wp_console'), 'the cookie still exists');
}

const forget = (page) => page.context().clearCookies();

/**
 * Fills in a form, ends the session, submits the form and signs in: the input is restored and can be submitted.
 * `within` contains the form, and `show` opens it.
 */
async function survivesSignIn(page, path, end, form) {
    const { fields = {}, choices = {}, checked = [], secrets = {}, button, show, after, within = page.locator('main') } = form;
    const at = (name) => within.locator(`[name="${name}"]`).first();
    const box = ([name, value]) => within.locator(`[name="${name}"][value="${value}"]`);
    await page.goto(given.url + path);
    await show?.();
    for (const [name, value] of Object.entries({ ...fields, ...secrets })) await at(name).fill(value);
    for (const [name, value] of Object.entries(choices)) await at(name).selectOption(value);
    for (const pair of checked) await box(pair).check();
    await end(page);
    await within.getByRole('button', { name: button, exact: true }).click();
    await page.waitForURL(/\/login/);
    const kept = await page.evaluate(() => JSON.stringify(sessionStorage));
    for (const secret of Object.values(secrets)) assert.ok(!kept.includes(secret), 'secrets are not stored');
    await signIn(page);
    await page.locator('[data-restored]').waitFor();
    assert.equal(new URL(page.url()).pathname, path, 'the page of the form is open');
    for (const [name, value] of Object.entries({ ...fields, ...choices })) {
        assert.equal(await at(name).inputValue(), value, `${path}: ${name}`);
        assert.ok(await at(name).isVisible(), `${path}: ${name} is visible`);
    }
    for (const pair of checked) assert.ok(await box(pair).isChecked(), `${path}: ${pair}`);
    for (const [name, value] of Object.entries(secrets)) {
        assert.equal(await at(name).inputValue(), '', `${path}: ${name}`);
        await at(name).fill(value);
    }
    await within.getByRole('button', { name: button, exact: true }).click();
    await page.waitForURL(after);
    await page.locator('[data-restored]').waitFor({ state: 'detached' });
}

async function restoresForms(page, org) {
    const server = await api(page, 'POST', '/servers', { slug: 'rockets', name: 'Rockets', support: 'tickets' });
    for (const end of [forget, revoke]) {
        await survivesSignIn(page, `${org}/servers/${server.id}/settings`, end, {
            fields: { name: 'Rockets & more', product_name: 'Rocket' }, button: 'Save', after: /settings/,
        });
        await survivesSignIn(page, `${org}/walkthroughs/new`, end, { fields: { title: `Launch "it" (${end.name})` }, button: 'Create and open the editor', after: /\/walkthroughs\/wt_/ });
        await survivesSignIn(page, `${org}/settings`, end, { fields: { name: 'Ümlaut <b>' }, button: 'Save', after: /settings/ });
        await survivesSignIn(page, `${org}/webhooks`, end, {
            fields: { url: 'https://hooks.example/rockets?a=1', description: 'Tickets "to" <chat>' }, checked: [['events', 'ticket.created']],
            button: 'Create webhook', after: /\/webhooks/,
        });
        await survivesSignIn(page, `${org}/members`, end, {
            fields: { email: `${end.name}@example.com` }, choices: { role: 'admin' }, button: 'Invite', after: /\/(members|invitations)/,
        });
        const { items } = await api(page, 'GET', '/invitations');
        const invited = items.find((it) => it.email === `${end.name}@example.com`);
        assert.equal(invited?.role, 'admin', 'the role was restored too');
    }
}

/** The forms of a ticket: a reply, a note, and an edit of a note. */
async function restoresTicketForms(page, org) {
    const { ticket_id: ticket } = await tool(`${given.url}/s/rockets/mcp`, 'get_support', { title: 'It leaks', problem: 'Fuel.', email: 'pia@example.com' });
    const path = `${org}/tickets/${ticket}`;
    const comments = () => api(page, 'GET', `/tickets/${ticket}/comments`).then((it) => it.items);
    const text = (about) => `${about}: tighten **the valve**.\n\n    <b> & "quotes"`;
    for (const end of [forget, revoke]) {
        const [reply, note, edited] = ['Reply', 'Note', 'Edited'].map((it) => text(`${it}, ${end.name}`));
        await survivesSignIn(page, path, end, { fields: { body: reply }, button: 'Send', after: /\/tickets\// });
        await survivesSignIn(page, path, end, { fields: { body: note }, checked: [['kind', 'note']], button: 'Send', after: /\/tickets\// });
        const written = (await comments()).find((it) => it.body === note);
        assert.ok(written?.internal, 'the note is internal');
        assert.equal((await comments()).find((it) => it.body === reply)?.internal, false);
        const article = page.locator(`article[id="${written.id}"]`);
        const show = () => article.locator('summary', { hasText: 'Edit' }).click();
        const field = `body-${written.id}`;
        await page.goto(given.url + path);
        await survivesSignIn(page, path, end, { fields: { [field]: edited }, button: 'Save', show, after: /\/tickets\//, within: article });
        assert.ok((await comments()).some((it) => it.body === edited), 'the note was changed');
        const within = page.getByRole('form', { name: 'Ticket details' });
        await survivesSignIn(page, path, end, { choices: { status: 'in_progress', priority: 'high' }, button: 'Save', within, after: /\/tickets\// });
        await api(page, 'PATCH', `/tickets/${ticket}`, { status: 'pending', priority: 'normal' });
    }
}

/** A rejected form is shown at the URL it was submitted to, which has no GET route: it is restored on its original page. */
async function restoresRejectedForms(page, org) {
    const { items: [ticket] } = await api(page, 'GET', '/tickets');
    await page.goto(`${given.url}${org}/tickets/${ticket.id}`);
    const body = page.locator('main [name="body"]');
    await body.fill(' ');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('main .field-error').waitFor();
    assert.match(page.url(), /\/comments$/);
    await body.fill('A second attempt');
    await revoke(page);
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.waitForURL(/\/login/);
    await signIn(page);
    await page.locator('[data-restored]').waitFor();
    assert.equal(new URL(page.url()).pathname, `${org}/tickets/${ticket.id}`);
    assert.equal(await body.inputValue(), 'A second attempt');
    await page.getByRole('button', { name: 'Send', exact: true }).click();
    await page.locator('article', { hasText: 'A second attempt' }).waitFor();
}

/** Leaving a changed form asks for confirmation; leaving an unchanged or submitted form does not. */
async function warnsBeforeLeaving(page, org) {
    const dialogs = [];
    page.on('dialog', async (dialog) => {
        dialogs.push(dialog.type());
        await dialog.accept();
    });
    const leave = async () => {
        await page.getByRole('link', { name: 'Walkthroughs', exact: true }).first().click();
        await page.waitForURL(/\/walkthroughs$/);
    };
    await page.goto(given.url + `${org}/settings`);
    await leave();
    assert.deepEqual(dialogs, [], 'the form is unchanged');
    await page.goto(given.url + `${org}/settings`);
    await page.locator('main [name="name"]').first().fill('Changed');
    await leave();
    assert.deepEqual(dialogs, ['beforeunload']);
    await page.goto(given.url + `${org}/settings`);
    await page.locator('main [name="name"]').first().fill('Sent');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.locator('[data-flash]').waitFor();
    assert.deepEqual(dialogs, ['beforeunload'], 'the form was submitted');
}

const browser = await launch(given.chromium);
try {
    const page = await open(browser);
    await setUp(page, given.url + given.setup);
    const [org] = new URL(page.url()).pathname.match(/^\/o\/[^/]+/);
    for (const [name, scenario] of Object.entries({ restoresForms, restoresTicketForms, restoresRejectedForms, warnsBeforeLeaving })) {
        await scenario(page, org);
        console.log(`${name}: ok`);
    }
    assert.deepEqual(page.problems.filter((problem) => !/status of 4\d\d/.test(problem)), []);
} catch (error) {
    await showPages(browser, given.screenshots, 'failed-form');
    throw error;
} finally {
    await browser.close();
}
