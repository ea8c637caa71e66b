// Sign-in with Waypost accounts. Every scenario starts on an installation without users.

import assert from 'node:assert/strict';
import { decide, fill, form, open, waitForConsent, waitForForm, waitForReturn } from './browser.mjs';

const ADA = 'ada@example.com';
const PASSWORD = 'a rocket in every garage';

/** Opens the sign-in page from the application. */
async function start(t, page, client, more) {
    await page.goto(client.authorize(more));
    await waitForForm(page, 'email');
}

/** Enters the emailed code. */
async function enterCode(t, page, email = ADA) {
    await waitForForm(page, 'code');
    await fill(page, { code: await t.mail(email) });
}

async function allow(page, client) {
    await waitForConsent(page);
    await decide(page, 'allow');
    await waitForReturn(page);
    await client.tokens();
}

/** Enters the email and opens the password page. */
async function choosePassword(page) {
    await form(page, 'email').locator('input[name="email"]').fill(ADA);
    await page.locator('button[formaction*="/oauth/sign-in/password"]').click();
    await waitForForm(page, 'email', 'password');
}

async function signUp(t, page, client) {
    await start(t, page, client);
    await page.locator('a[href*="/oauth/sign-up"]').click();
    await waitForForm(page, 'email', 'password');
    await fill(page, { email: ADA, password: PASSWORD });
    await enterCode(t, page);
    await allow(page, client);
}

/** Sign-up with a password. A weak password is rejected. The user can then start the walkthrough. */
export async function signs_up(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await t.look.at(page, 'sign-in');
    await page.locator('a[href*="/oauth/sign-up"]').click();
    await waitForForm(page, 'email', 'password');
    await t.look.at(page, 'sign-up');
    await fill(page, { email: ADA, password: 'password1234' });
    await page.locator('[role="alert"]').waitFor();
    await t.look.at(page, 'sign-up-rejected');
    await fill(page, { email: ADA, password: PASSWORD });
    await waitForForm(page, 'code');
    await t.look.at(page, 'code');
    await fill(page, { code: '00000000' });
    await page.locator('[role="alert"]').waitFor();
    await t.look.at(page, 'code-rejected');
    await enterCode(t, page);
    await waitForConsent(page);
    const text = await page.locator('body').innerText();
    for (const expected of ['Rocket Studio', '127.0.0.1', ADA, 'Acme Rockets']) {
        assert.ok(text.includes(expected), `the consent page shows ${expected}:\n${text}`);
    }
    assert.equal(await page.locator('[role="note"]').count(), 1, 'the page warns of an unverified application');
    await t.look.at(page, 'consent');
    await allow(page, client);
    assert.equal(await client.begin(), 0);
    assert.deepEqual(page.problems, []);
}

/** Sign-in of a new user with a code only. */
export async function by_code(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await fill(page, { email: ADA });
    await enterCode(t, page);
    await allow(page, client);
    await client.begin();
    await client.next();
    // Another browser with another client: the same user, at the same step.
    const [other, second] = [await open(t.browser), await t.client('Another studio')];
    await start(t, other, second);
    await fill(other, { email: ADA });
    await enterCode(t, other);
    await allow(other, second);
    assert.equal(await second.begin(), 1);
    assert.deepEqual([...page.problems, ...other.problems], []);
}

/** Sign-in with a password; an incorrect password is rejected. */
export async function by_password(t) {
    const [first, known] = [await open(t.browser), await t.client()];
    await signUp(t, first, known);
    await known.begin();
    await known.next();
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await choosePassword(page);
    await t.look.at(page, 'password');
    await fill(page, { email: ADA, password: 'not the password' });
    await page.locator('[role="alert"]').waitFor();
    await t.look.at(page, 'password-rejected');
    await fill(page, { email: ADA, password: PASSWORD });
    await allow(page, client);
    assert.equal(await client.begin(), 1);
    assert.deepEqual(page.problems, []);
}

/** A forgotten password is replaced with a code; the old password no longer works. */
export async function forgotten(t) {
    const [first, known] = [await open(t.browser), await t.client()];
    await signUp(t, first, known);
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await choosePassword(page);
    await page.locator('a[href*="/oauth/sign-in/forgotten"]').click();
    await waitForForm(page, 'email');
    await t.look.at(page, 'forgotten');
    await fill(page, { email: ADA });
    await waitForForm(page, 'code', 'new_password');
    await t.look.at(page, 'reset');
    await fill(page, { code: await t.mail(ADA), new_password: 'two rockets in every garage' });
    await allow(page, client);
    await client.begin();
    // Tokens from before the reset are revoked.
    assert.equal((await known.post('select_walkthrough', { walkthrough_id: 'wt_any' })).status, 401);
    const [other, third] = [await open(t.browser), await t.client()];
    await start(t, other, third);
    await choosePassword(other);
    await fill(other, { email: ADA, password: PASSWORD });
    await other.locator('[role="alert"]').waitFor();
    await fill(other, { email: ADA, password: 'two rockets in every garage' });
    await allow(other, third);
    assert.deepEqual(page.problems, []);
}

/** A user who denies consent returns to the application with an error. */
export async function refusal(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await fill(page, { email: ADA });
    await enterCode(t, page);
    await waitForConsent(page);
    await decide(page, 'deny');
    await waitForReturn(page);
    const parameters = await client.callback();
    assert.equal(parameters.get('error'), 'access_denied');
    assert.equal(parameters.get('code'), null);
    assert.deepEqual(page.problems, []);
}

/** A signed-in browser goes directly to the consent page, also for a client that was allowed before. */
export async function returning(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await fill(page, { email: ADA });
    await enterCode(t, page);
    await allow(page, client);
    const second = await t.client('Another studio');
    await page.goto(second.authorize());
    await allow(page, second);
    await page.goto(client.authorize());
    await allow(page, client);
    await client.begin();
    // `prompt=login` forces a sign-in.
    await start(t, page, client, { prompt: 'login' });
    assert.deepEqual(page.problems, []);
}

/** Keyboard only: every field and button can be focused and shows the focus. */
export async function keyboard(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await focus(page, 'form:not(:has([name="password"])) input[name="email"]');
    await page.keyboard.type(ADA);
    await page.keyboard.press('Enter');
    await waitForForm(page, 'code');
    await focus(page, 'input[name="code"]');
    await page.keyboard.type(await t.mail(ADA));
    await page.keyboard.press('Enter');
    await waitForConsent(page);
    await focus(page, 'button[value="allow"]');
    await page.keyboard.press('Enter');
    await waitForReturn(page);
    await client.tokens();
    assert.equal(await client.begin(), 0);
    assert.deepEqual(page.problems, []);
}

/** Presses Tab until the element has the focus. */
async function focus(page, selector) {
    for (let presses = 0; presses < 30; presses += 1) {
        const focused = await page.evaluate((selector) => {
            const { activeElement } = document;
            const { outlineStyle, boxShadow } = getComputedStyle(activeElement);
            return activeElement.matches(selector) ? { seen: outlineStyle !== 'none' || boxShadow !== 'none' } : null;
        }, selector);
        if (focused) {
            assert.ok(focused.seen, `${selector} shows the focus`);
            return;
        }
        await page.keyboard.press('Tab');
    }
    assert.fail(`${selector} cannot be reached by the keyboard on ${page.url()}`);
}

/** Signs in on a phone. */
export async function phone(t) {
    const [page, client] = [await open(t.browser, { width: 375, height: 667 }), await t.client()];
    await start(t, page, client);
    await fill(page, { email: ADA });
    await enterCode(t, page);
    await waitForConsent(page);
    // The decision buttons are visible without horizontal scrolling.
    for (const button of await page.locator('button[name="decision"]').all()) {
        const box = await button.boundingBox();
        assert.ok(box.x >= 0 && box.x + box.width <= 375 && box.height >= 40, `the button is large enough: ${JSON.stringify(box)}`);
    }
    await allow(page, client);
    assert.equal(await client.begin(), 0);
    assert.deepEqual(page.problems, []);
}

/** The emailed link works only in the requesting browser, after pressing a button. */
export async function by_link(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await start(t, page, client);
    await fill(page, { email: ADA });
    await waitForForm(page, 'code');
    const link = await t.link(ADA);
    const elsewhere = await open(t.browser);
    await elsewhere.goto(link);
    await t.look.at(elsewhere, 'link-elsewhere');
    assert.equal(await elsewhere.locator('form').count(), 0, await elsewhere.content());
    await page.goto(link);
    await t.look.at(page, 'link');
    await page.locator('form[method="post"] button').first().click();
    await allow(page, client);
    assert.equal(await client.begin(), 0);
    assert.deepEqual(page.problems, []);
}
