// Chromium, and how a person uses the sign-in pages in it.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const ARGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--no-proxy-server',
    // Whatever a page wants from elsewhere, these tests stay on this machine.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
];

/** Starts the browser. What goes wrong on pages of the origin `foreign` is nobody's concern here. */
export async function launch(executablePath, foreign) {
    const browser = await chromium.launch({ executablePath, args: ARGS, headless: true });
    return Object.assign(browser, { foreign });
}

/** A browser of its own, without cookies, on a desk or with the `viewport` given. */
export async function open(browser, viewport = { width: 1280, height: 800 }) {
    const context = await browser.newContext({ viewport, reducedMotion: 'reduce' });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.problems = [];
    // A policy of the page that hinders the page itself, a script that fails, a style sheet that is not there. Pages
    // that say what went wrong have a status that says so as well.
    page.on('console', (message) => {
        const { url } = message.location();
        const its = url === page.url() || url.endsWith('/favicon.ico');
        const status = its && /the server responded with a status of \d+/.test(message.text());
        const ours = !browser.foreign || !page.url().startsWith(browser.foreign);
        if (message.type() === 'error' && !status && ours) page.problems.push(`${message.text()} ${url}`);
    });
    page.on('pageerror', (error) => page.problems.push(String(error)));
    return page;
}

/** The form that asks for all of `names`. */
export function form(page, ...names) {
    const fields = names.map((name) => `:has(input[name="${name}"]:not([type="hidden"]))`);
    return page.locator(`form${fields.join('')}`);
}

/** Fills the form that asks for just these fields, and sends it. */
export async function fill(page, values) {
    const names = Object.keys(values);
    const forms = form(page, ...names);
    const found = [];
    for (const candidate of await forms.all()) {
        const asked = await candidate.locator('input:visible:not([type="hidden"]):not([type="checkbox"])').count();
        if (asked === names.length) found.push(candidate);
    }
    assert.equal(found.length, 1, `one form asks for ${names} on ${page.url()}\n${await page.content()}`);
    for (const [name, value] of Object.entries(values)) {
        await found[0].locator(`input[name="${name}"]`).fill(value);
    }
    await found[0].locator('button[type="submit"], button:not([type])').first().click();
}

/** Whether the page asks for something, once it is there. */
export async function asks(page, ...names) {
    await form(page, ...names).first().waitFor();
}

/** Waits for the consent page. */
export async function consent(page) {
    await page.locator('button[name="decision"][value="allow"]').waitFor();
}

/** Says yes or no on the consent page. */
export async function decide(page, decision) {
    await page.locator(`button[name="decision"][value="${decision}"]`).click();
}

/** Waits until the browser is back at the application. */
export async function back(page) {
    await page.locator('#back').waitFor();
}
