// Launches Chromium and interacts with the sign-in pages.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const ARGS = [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--no-proxy-server',
    // Blocks all connections to other machines.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1',
];

/** Launches the browser. Problems on pages of the origin `foreign` are ignored. */
export async function launch(executablePath, foreign) {
    const browser = await chromium.launch({ executablePath, args: ARGS, headless: true });
    return Object.assign(browser, { foreign });
}

/** Opens a page in a new browser context without cookies, with a desktop viewport by default. */
export async function open(browser, viewport = { width: 1280, height: 800 }) {
    const context = await browser.newContext({ viewport, reducedMotion: 'reduce' });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.problems = [];
    // Records policy violations, failing scripts and missing files. Error statuses of the page itself are expected.
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

/** Returns a locator of the forms that have all fields in `names`. */
export function form(page, ...names) {
    const fields = names.map((name) => `:has(input[name="${name}"]:not([type="hidden"]))`);
    return page.locator(`form${fields.join('')}`);
}

/** Fills in and submits the form that has exactly these fields. */
export async function fill(page, values) {
    const names = Object.keys(values);
    const forms = form(page, ...names);
    const matching = [];
    for (const candidate of await forms.all()) {
        const count = await candidate.locator('input:visible:not([type="hidden"]):not([type="checkbox"])').count();
        if (count === names.length) matching.push(candidate);
    }
    assert.equal(matching.length, 1, `one form with the fields ${names} on ${page.url()}\n${await page.content()}`);
    for (const [name, value] of Object.entries(values)) {
        await matching[0].locator(`input[name="${name}"]`).fill(value);
    }
    await matching[0].locator('button[type="submit"], button:not([type])').first().click();
}

/** Waits until the page has a form with the fields `names`. */
export async function waitForForm(page, ...names) {
    await form(page, ...names).first().waitFor();
}

/** Waits for the consent page. */
export async function waitForConsent(page) {
    await page.locator('button[name="decision"][value="allow"]').waitFor();
}

/** Submits a decision on the consent page. */
export async function decide(page, decision) {
    await page.locator(`button[name="decision"][value="${decision}"]`).click();
}

/** Waits until the browser has returned to the application. */
export async function waitForReturn(page) {
    await page.locator('#back').waitFor();
}
