// Forms whose session has ended, with a real browser: nothing that was typed is lost. usage: forms.mjs JSON
//
// The JSON: `chromium`, its program; `url` of a fresh installation with one organisation; `setup`, the path of its set-up
// page; `screenshots`, a folder.

import assert from 'node:assert/strict';
import { launch, open } from '../browser/browser.mjs';

const given = JSON.parse(process.argv[2]);
const EMAIL = 'anna@example.com';
const PASSWORD = 'quartz-banjo-umbrella-42';

// A browser that waits for ever must not hold up a build.
setTimeout(() => {
    console.error('the scenario did not end within three minutes');
    process.exit(1);
}, 180_000).unref();

async function signIn(page) {
    await page.locator('input[name="email"]').fill(EMAIL);
    await page.locator('input[name="password"]').fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

/** Fills a form, ends the session, sends the form, signs in: everything is there again, and can be sent. */
async function comesBack(page, path, { fields, button, secrets = {}, after }) {
    await page.goto(given.url + path);
    for (const [name, value] of Object.entries({ ...fields, ...secrets })) {
        await page.locator(`main [name="${name}"]`).first().fill(value);
    }
    await page.context().clearCookies();
    await page.getByRole('button', { name: button, exact: true }).click();
    await page.waitForURL(/\/login/);
    const kept = await page.evaluate(() => JSON.stringify(sessionStorage));
    for (const secret of Object.values(secrets)) assert.ok(!kept.includes(secret), 'a secret is not kept');
    await signIn(page);
    await page.locator('[data-restored]').waitFor();
    assert.equal(new URL(page.url()).pathname, path, 'the page of the form');
    for (const [name, value] of Object.entries(fields)) {
        assert.equal(await page.locator(`main [name="${name}"]`).first().inputValue(), value, `${path}: ${name}`);
    }
    for (const [name, value] of Object.entries(secrets)) {
        assert.equal(await page.locator(`main [name="${name}"]`).first().inputValue(), '', `${path}: ${name}`);
        await page.locator(`main [name="${name}"]`).first().fill(value);
    }
    await page.getByRole('button', { name: button, exact: true }).click();
    await page.waitForURL(after);
    assert.equal(await page.locator('[data-restored]').count(), 0);
}

async function restores(page, org) {
    const made = await page.evaluate(async () => {
        const headers = { 'Content-Type': 'application/json', 'Waypost-Organization': document.body.dataset.org };
        const ask = (path, body) => fetch(`/api/v1${path}`, { method: 'POST', headers, body: JSON.stringify(body) }).then((it) => it.json());
        return { server: await ask('/servers', { slug: 'rockets', name: 'Rockets', support: 'tickets' }) };
    });
    await comesBack(page, `${org}/servers/${made.server.id}/settings`, {
        fields: { name: 'Rockets & more', product_name: 'Rocket' }, button: 'Save', after: /settings/,
    });
    await comesBack(page, `${org}/walkthroughs/new`, { fields: { title: 'Launch "it"' }, button: 'Create and open the editor', after: /\/walkthroughs\/wt_/ });
    await comesBack(page, `${org}/settings`, { fields: { name: 'Ümlaut <b>' }, button: 'Save', after: /settings/ });
}

/** Leaving a form that was changed asks; one that was not changed, or was sent, does not. */
async function warns(page, org) {
    const asked = [];
    page.on('dialog', async (dialog) => {
        asked.push(dialog.type());
        await dialog.accept();
    });
    const leave = async () => {
        await page.getByRole('link', { name: 'Walkthroughs', exact: true }).first().click();
        await page.waitForURL(/\/walkthroughs$/);
    };
    await page.goto(given.url + `${org}/settings`);
    await leave();
    assert.deepEqual(asked, [], 'nothing was changed');
    await page.goto(given.url + `${org}/settings`);
    await page.locator('main [name="name"]').first().fill('Changed');
    await leave();
    assert.deepEqual(asked, ['beforeunload']);
    await page.goto(given.url + `${org}/settings`);
    await page.locator('main [name="name"]').first().fill('Sent');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.locator('[data-flash]').waitFor();
    assert.deepEqual(asked, ['beforeunload'], 'it was sent');
}

const browser = await launch(given.chromium);
try {
    const page = await open(browser);
    await page.goto(given.url + given.setup);
    await page.locator('input[name="name"]').fill('Anna');
    await page.locator('input[name="email"]').fill(EMAIL);
    await page.locator('input[name="password"]').fill(PASSWORD);
    await page.locator('main button[type="submit"]').click();
    await page.waitForURL(/\/o\//);
    const [org] = new URL(page.url()).pathname.match(/^\/o\/[^/]+/);
    for (const [name, act] of Object.entries({ restores, warns })) {
        await act(page, org);
        console.log(`${name}: ok`);
    }
    assert.deepEqual(page.problems.filter((problem) => !/status of 4\d\d/.test(problem)), []);
} catch (error) {
    for (const page of browser.contexts().flatMap((context) => context.pages())) {
        const text = await page.locator('body').innerText().catch(() => '');
        console.error(`open: ${page.url()} ${JSON.stringify(page.problems)}\n${text}\n`);
    }
    throw error;
} finally {
    await browser.close();
}
