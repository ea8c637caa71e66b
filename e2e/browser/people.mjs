// People sign in to the gateway with their account of the console. The installation has the organisation `acme`.

import assert from 'node:assert/strict';
import { EMAIL, PASSWORD, setUp, until } from '../console/console.mjs';
import { decide, fill, open, waitForConsent, waitForForm, waitForReturn } from './browser.mjs';

/** Opens the sign-in page of the console from the application. */
async function start(page, client) {
    await page.goto(client.authorize());
    await waitForForm(page, 'email', 'password');
    assert.equal(new URL(page.url()).pathname, '/login');
}

/** Waits for the consent page, which names the application, the organisation, the address and the person. */
async function checkConsent(t, page, client, email) {
    await waitForConsent(page);
    const text = await page.locator('main').innerText();
    const request = 'An application that calls itself Rocket Studio wants to use the gateway of Acme Rockets as you.';
    for (const expected of [request, t.given.url, email, new URL(client.redirectUri).host]) {
        assert.ok(text.includes(expected), `the consent page shows ${expected}:\n${text}`);
    }
    assert.equal(await page.locator('[role="note"]').count(), 1, 'the page warns of an unverified application');
}

/** Grants the agent of the person, which exists since the consent, access to the instance `search`. */
async function grant(page, origin) {
    await page.goto(`${origin}/o/acme/grants`);
    await page.getByRole('link', { name: `Grant ${EMAIL} access to search` }).click();
    await page.getByRole('radio', { name: 'Read only' }).check();
    await page.getByRole('button', { name: 'Grant access' }).click();
    await page.getByText('Access granted.').waitFor();
}

/**
 * Sign-in with a password, in a browser without a session of the console. The application then sees what the person is granted:
 * of the instance `search`, the tool `find`, which is approved. `given.setup` is the path of the setup page.
 */
export async function signs_in(t) {
    const { origin } = new URL(t.given.url);
    const admin = await open(t.browser);
    await setUp(admin, origin + t.given.setup);
    const [page, client] = [await open(t.browser), await t.client()];
    assert.equal(client.issuer, `${origin}/gateway`);
    await start(page, client);
    await fill(page, { email: EMAIL, password: PASSWORD });
    await checkConsent(t, page, client, EMAIL);
    await t.look.at(page, 'consent');
    await decide(page, 'allow');
    await waitForReturn(page);
    await client.tokens();
    assert.deepEqual(await client.listTools(), [], 'nothing is granted yet');
    await grant(admin, origin);
    await until(admin, () => client.listTools(), (tools) => tools.length > 0, 'the tools that the application sees');
    assert.deepEqual(await client.listTools(), ['search__find']);
    assert.deepEqual([...page.problems, ...admin.problems], []);
}

/** A member, `given.email`, signs in with an emailed code and denies access. The application gets an error and no code. */
export async function refusal(t) {
    const { email } = t.given;
    const [page, client] = [await open(t.browser), await t.client()];
    await start(page, client);
    await page.locator('input[name="email"]').fill(email);
    await page.locator('button[formaction="/login/code"]').click();
    await waitForForm(page, 'code');
    await fill(page, { code: await t.mail(email) });
    await checkConsent(t, page, client, email);
    await decide(page, 'deny');
    await waitForReturn(page);
    const parameters = await client.callback();
    assert.equal(parameters.get('error'), 'access_denied');
    assert.equal(parameters.get('code'), null);
    assert.equal((await client.send('tools/list', {})).status, 401);
    assert.deepEqual(page.problems, []);
}
