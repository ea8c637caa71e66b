// Signing in where the organisation's own provider knows the users: consent, then the provider, then done.

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';
import { back, consent, decide, open } from './browser.mjs';

/** Signs in on the provider's pages as `login`. */
async function atProvider(page, login = 'ada') {
    await page.locator('input[name="login"]').fill(login);
    await page.locator('input[name="password"]').fill('any');
    await page.locator('button[type="submit"]').click();
    // The provider asks once more, whether Waypost may know who that is.
    await page.getByRole('button', { name: 'Continue' }).click();
}

async function signIn(t, page, client) {
    await page.goto(client.authorize());
    await consent(page);
    await decide(page, 'allow');
    await atProvider(page);
    await back(page);
    await client.tokens();
}

/** The whole way, and again in another browser: the same person, at the same step. */
export async function signs_in(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await consent(page);
    await t.look.at(page, 'consent');
    await decide(page, 'allow');
    await page.locator('input[name="login"]').waitFor();
    assert.equal(new URL(page.url()).origin, t.given.provider);
    await atProvider(page);
    await back(page);
    await client.tokens();
    await client.begin();
    await client.next();
    const [other, second] = [await open(t.browser), await t.client('Another studio')];
    await signIn(t, other, second);
    assert.equal(await second.begin(), 1);
    assert.deepEqual(page.problems, []);
}

/** Without consent nobody is sent to the provider. */
export async function refusal(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await consent(page);
    await decide(page, 'deny');
    await back(page);
    assert.equal((await client.callback()).get('error'), 'access_denied');
    assert.deepEqual(page.problems, []);
}

/** Who turns back at the provider is sent back to the application, which learns it. */
export async function refusal_at_the_provider(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await consent(page);
    await decide(page, 'allow');
    await page.locator('input[name="login"]').waitFor();
    await page.locator('a[href*="abort"]').click();
    // A page may tell first what happened; its way on leads back.
    const way = page.locator(`#back, a[href*="${new URL(client.redirectUri).port}"]`);
    await way.first().waitFor();
    if ((await page.locator('#back').count()) === 0) {
        await t.look.at(page, 'refused-by-provider');
        await way.first().click();
    }
    await back(page);
    const parameters = await client.callback();
    assert.equal(parameters.get('error'), 'access_denied');
    assert.equal(parameters.get('code'), null);
    assert.deepEqual(page.problems, []);
}

/**
 * Goes on to the application. A new key of the provider is looked for only every ten seconds: until then the page says
 * so, and people try again.
 */
async function patiently(t, page) {
    for (let tries = 0; tries < 20; tries += 1) {
        await page.locator('#back, a:text("Try again")').first().waitFor();
        if ((await page.locator('#back').count()) > 0) return;
        assert.match(await page.locator('body').innerText(), /signed with a key that it does not publish/);
        if (tries === 0) await t.look.at(page, 'unknown-key');
        await setTimeout(1000);
        await page.getByText('Try again').click();
    }
    assert.fail('the new key was not looked for');
}

/** A user who was here before signs in: with `given.completed` steps of what they did then. */
export async function again(t) {
    const [page, client] = [await open(t.browser), await t.client()];
    await page.goto(client.authorize());
    await consent(page);
    await decide(page, 'allow');
    await atProvider(page);
    await patiently(t, page);
    await client.tokens();
    assert.equal(await client.begin(), t.given.completed);
    await client.next();
    assert.deepEqual(page.problems, []);
}
