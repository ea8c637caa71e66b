// Sign-in with the organisation's own provider: consent, then the provider.

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { decide, open, waitForConsent, waitForReturn } from './browser.mjs';

/** Signs in on the provider's pages as `login`. */
async function atProvider(page, login = 'ada') {
    await page.locator('input[name="login"]').fill(login);
    await page.locator('input[name="password"]').fill('any');
    await page.locator('button[type="submit"]').click();
    // The provider asks for consent to share the identity with Waypost.
    await page.getByRole('button', { name: 'Continue' }).click();
}

async function signIn(t, page, client) {
    await page.goto(client.authorize());
    await waitForConsent(page);
    await decide(page, 'allow');
    await atProvider(page);
    await waitForReturn(page);
    await client.tokens();
}

/** The complete flow. A second sign-in in another browser identifies the same user, at the same step. */
export async function signs_in(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await waitForConsent(page);
    await t.look.at(page, 'consent');
    await decide(page, 'allow');
    await page.locator('input[name="login"]').waitFor();
    assert.equal(new URL(page.url()).origin, t.given.provider);
    await atProvider(page);
    await waitForReturn(page);
    await client.tokens();
    await client.begin();
    await client.next();
    const [other, second] = [await open(t.browser), await t.client('Another studio')];
    await signIn(t, other, second);
    assert.equal(await second.begin(), 1);
    assert.deepEqual(page.problems, []);
}

/** Without consent, the user is not redirected to the provider. */
export async function refusal(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await waitForConsent(page);
    await decide(page, 'deny');
    await waitForReturn(page);
    assert.equal((await client.callback()).get('error'), 'access_denied');
    assert.deepEqual(page.problems, []);
}

/** A user who cancels at the provider returns to the application with an error. */
export async function refusal_at_the_provider(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await waitForConsent(page);
    await decide(page, 'allow');
    await page.locator('input[name="login"]').waitFor();
    await page.locator('a[href*="abort"]').click();
    // A page may explain the error first and link back.
    const link = page.locator(`#back, a[href*="${new URL(client.redirectUri).port}"]`);
    await link.first().waitFor();
    if ((await page.locator('#back').count()) === 0) {
        await t.look.at(page, 'refused-by-provider');
        await link.first().click();
    }
    await waitForReturn(page);
    const parameters = await client.callback();
    assert.equal(parameters.get('error'), 'access_denied');
    assert.equal(parameters.get('code'), null);
    assert.deepEqual(page.problems, []);
}

/**
 * Returns to the application. New keys of the provider are fetched at most every ten seconds; until then, the page
 * shows an error and the user tries again.
 */
async function retryUntilKeyIsKnown(t, page) {
    for (let attempts = 0; attempts < 20; attempts += 1) {
        await page.locator('#back, a:text("Try again")').first().waitFor();
        if ((await page.locator('#back').count()) > 0) return;
        assert.match(await page.locator('body').innerText(), /signed with a key that it does not publish/);
        if (attempts === 0) await t.look.at(page, 'unknown-key');
        await setTimeout(1000);
        await page.getByText('Try again').click();
    }
    assert.fail('the new key was not fetched');
}

/** A returning user signs in, with `given.completed` completed steps. */
export async function again(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await waitForConsent(page);
    await decide(page, 'allow');
    await atProvider(page);
    await retryUntilKeyIsKnown(t, page);
    await client.tokens();
    assert.equal(await client.begin(), t.given.completed);
    await client.next();
    assert.deepEqual(page.problems, []);
}
