// From an empty database to a resolved ticket, in a real browser. usage: story.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of an empty installation; `setup`, the path of its setup page;
// `mail`, the origin that returns the links in its emails; `waypost`, the executable whose `walk` command is the MCP
// client; `folder`, a folder for its state; `screenshots`, a folder.
//
// Every visited page is checked on a phone and a desktop, in the light and dark scheme, for accessibility with
// axe-core, for its size and for broken links.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { launch, open } from '../browser/browser.mjs';
import { Looker } from '../browser/look.mjs';
import { EMAIL, PASSWORD, api, endAfter, showPages, tool as call, until } from './console.mjs';

const given = JSON.parse(process.argv[2]);
const look = new Looker(given.screenshots, 'console');
const run = promisify(execFile);

endAfter(8);

const at = (path) => `${given.url}${path}`;
const main = (page) => page.locator('main');
const links = new Set();

/** Loads `path` and checks the page. */
async function see(page, name, path) {
    if (path) {
        const response = await page.goto(at(path));
        assert.ok(response.ok(), `${path}: ${response.status()}`);
    }
    await page.evaluate(() => window.scrollTo(0, 0));
    await look.at(page, name);
    assert.equal(await page.locator('h1').count(), 1, `${name}: one first-level heading`);
    const bytes = await page.evaluate(() => performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
        .filter((it) => it.name.startsWith(location.origin) && !/\/api\/v1\/|\/mcp$/.test(it.name))
        .reduce((sum, it) => sum + it.encodedBodySize, 0));
    assert.ok(bytes < 200_000 || name === 'reference', `${name} loads ${bytes} bytes`);
    for (const link of await page.locator('a[href^="/"]').evaluateAll((all) => all.map((it) => it.getAttribute('href')))) {
        links.add(link.split('#')[0]);
    }
}

const tool = (name, args) => call(at('/s/acme-docs/mcp'), name, args);
const draft = (page, id) => api(page, 'GET', `/walkthroughs/${id}`);
const field = (page, name) => page.locator(`[data-form] [name="${name}"]`);
const row = (page, title) => page.locator('.step-open', { has: page.locator('.step-title', { hasText: new RegExp(`^${title}$`) }) });

/** The first owner: account, organisation, server. */
async function signUp(page) {
    await see(page, 'login', '/login');
    await see(page, 'set-up', given.setup);
    await page.getByLabel('Your name').fill('Anna');
    await page.getByLabel('Email').fill('anna@example.com');
    await page.getByLabel('Password').fill(PASSWORD);
    await page.getByRole('button', { name: 'Create account' }).click();
    await page.waitForURL(/organizations\/new/);
    await see(page, 'organization-new');
    await page.getByLabel('Name', { exact: true }).fill('Acme Rockets');
    await page.waitForFunction(() => document.querySelector('input[name="slug"]').value === 'acme-rockets');
    await page.locator('input[name="slug"]').fill('acme');
    await page.getByRole('button', { name: 'Create organisation' }).click();
    await page.waitForURL(at('/o/acme'));
    await see(page, 'overview-first');
    for (const [name, path] of [['servers-empty', 'servers'], ['walkthroughs-empty', 'walkthroughs'], ['analytics-empty', 'analytics'],
        ['end-users-empty', 'end-users'], ['tickets-empty', 'tickets'], ['webhooks-empty', 'webhooks'], ['api-keys-empty', 'api-keys'],
        ['oauth-configs-empty', 'oauth-configs'], ['instances-empty', 'instances'], ['toolboxes-empty', 'toolboxes'],
        ['catalog-empty', 'catalog']]) {
        await see(page, name, `/o/acme/${path}`);
    }
}

async function makeServer(page) {
    await see(page, 'server-new', '/o/acme/servers/new');
    await page.getByLabel('Name', { exact: true }).fill('Acme Docs');
    await page.waitForFunction(() => document.querySelector('input[name="slug"]').value === 'acme-docs');
    await page.getByRole('button', { name: 'Create server' }).click();
    await page.waitForURL(/\/servers\/srv_/);
    const id = page.url().match(/srv_[0-9a-z]+/)[0];
    await see(page, 'server');
    await page.goto(at(`/o/acme/servers/${id}/settings`));
    await page.getByLabel('Support').selectOption('tickets');
    await see(page, 'server-settings');
    await main(page).getByRole('button', { name: /^Save/ }).first().click();
    await until(page, () => api(page, 'GET', `/servers/${id}`), (it) => it.support === 'tickets', 'support is enabled');
    return id;
}

/** Writes five steps in the editor and reorders them by mouse and keyboard. */
async function write(page) {
    await see(page, 'walkthrough-new', '/o/acme/walkthroughs/new');
    await page.getByLabel('Title').fill('Launch a rocket');
    await page.getByLabel('Empty walkthrough', { exact: true }).check();
    await page.getByRole('button', { name: 'Create and open the editor' }).click();
    await page.waitForURL(/\/walkthroughs\/wt_/);
    const id = page.url().match(/wt_[0-9a-z]+/)[0];
    // The list of steps is visible until the editor has loaded.
    await page.locator('[data-no-steps] [data-add]').waitFor();
    for (const title of ['Fuel', 'Build', 'Aim', 'Count down', 'Launch']) {
        await page.locator('[data-add]:visible').first().click();
        await page.waitForFunction(() => document.activeElement?.name === 'title');
        await page.keyboard.type(title);
        await field(page, 'content').fill(`# ${title}\n\nDo **${title}** now.`);
    }
    const order = (expected) => until(page, () => draft(page, id), (it) => it.steps.map((step) => step.title).join() === expected, expected);
    await order('Fuel,Build,Aim,Count down,Launch');
    await page.setViewportSize({ width: 1280, height: 1000 });
    const center = async (locator) => {
        const box = await locator.boundingBox();
        return { x: box.x + box.width / 2, y: box.y + box.height / 2, height: box.height };
    };
    const [from, to] = [await center(row(page, 'Build')), await center(row(page, 'Fuel'))];
    await page.mouse.move(from.x, from.y);
    await page.mouse.down();
    await page.mouse.move(from.x, from.y - 15, { steps: 3 });
    await page.mouse.move(to.x, to.y - to.height / 4, { steps: 6 });
    await page.mouse.up();
    await order('Build,Fuel,Aim,Count down,Launch');
    await row(page, 'Aim').focus();
    await page.keyboard.press('Alt+ArrowUp');
    await order('Build,Aim,Fuel,Count down,Launch');
    await row(page, 'Build').click();
    await page.locator('[data-read] strong', { hasText: 'Build' }).waitFor();
    await page.getByRole('tab', { name: 'Agent' }).click();
    await page.locator('[data-agent] pre', { hasText: 'Do **Build** now.' }).first().waitFor();
    await page.setViewportSize({ width: 1280, height: 800 });
    await see(page, 'editor');
    return id;
}

async function publish(page, id, name) {
    await see(page, name, `/o/acme/walkthroughs/${id}/publish`);
    const said = await main(page).innerText();
    await main(page).getByRole('button', { name: /^Publish/ }).click();
    await page.locator('[data-flash]').waitFor();
    return said;
}

/** Assigns the walkthrough, and checks the tabs of the server. */
async function assign(page, server, id) {
    await page.goto(at(`/o/acme/servers/${server}/walkthroughs`));
    await page.getByRole('button', { name: /Assign.*Launch a rocket/ }).click();
    await page.locator('#assigned', { hasText: 'Launch a rocket' }).waitFor();
    await see(page, 'server-walkthroughs');
    await see(page, 'walkthrough-assignments', `/o/acme/walkthroughs/${id}/assignments`);
    await see(page, 'server-install', `/o/acme/servers/${server}/install?tracking_id=ann-7`);
    assert.ok((await main(page).innerText()).includes(`${given.url.replace('127.0.0.1', 'localhost')}/s/acme-docs/t/ann-7/mcp`)
        || (await page.content()).includes('/s/acme-docs/t/ann-7/mcp'));
    await page.goto(at(`/o/acme/servers/${server}/try`));
    await main(page).getByRole('button', { name: 'Connect' }).click();
    await page.waitForFunction(() => document.querySelector('main').textContent.includes('list_walkthroughs'));
    await main(page).getByLabel('Tool', { exact: true }).selectOption('list_walkthroughs');
    await main(page).getByRole('button', { name: /^Call/ }).click();
    await page.waitForFunction(() => document.querySelector('main').textContent.includes('"title": "Launch a rocket"'));
    await see(page, 'server-try');
    // Arguments with a fixed set of values are drop-down lists.
    await main(page).getByLabel('Tool', { exact: true }).selectOption('reset_walkthrough_progress');
    await main(page).getByLabel('confirm (required)').selectOption('true');
}

/** One MCP client completes the walkthrough; another one stops half-way and opens a ticket. */
async function play(page, id) {
    const { stdout } = await run(given.waypost, ['walk', at('/s/acme-docs/mcp'), '--yes'], { env: { ...process.env, XDG_STATE_HOME: given.folder } });
    assert.match(stdout, /Launch/);
    const started = await tool('select_walkthrough', { walkthrough_id: id });
    const handle = started.progress_handle;
    await tool('next_walkthrough_step', { progress_handle: handle });
    const ticket = await tool('get_support', {
        title: 'The fuel <script>alert(1)</script> leaks', problem: 'It drips.\n\n<img src=x onerror=alert(1)>', email: 'pia@example.com', progress_handle: handle,
    }).catch(async () => tool('get_support', {
        title: 'The fuel <script>alert(1)</script> leaks', problem: 'It drips.\n\n<img src=x onerror=alert(1)>', email: 'pia@example.com',
    }));
    assert.equal(ticket.status, 'pending');
    return ticket.ticket_id;
}

/** Checks analytics and end users. */
async function checkAnalytics(page, id) {
    await see(page, 'analytics', `/o/acme/analytics?walkthrough=${id}`);
    const funnel = await page.getByRole('region', { name: 'Funnel', exact: true }).innerText();
    const steps = funnel.match(/\b[1-5]\. /g) ?? [];
    assert.equal(steps.length, 5, funnel);
    assert.match(await main(page).innerText(), /2 started, 1 completed/);
    await see(page, 'end-users', '/o/acme/end-users');
    await main(page).locator('a[href*="/end-users/eu_"]').first().click();
    await page.waitForURL(/\/end-users\/eu_/);
    await see(page, 'end-user');
}

/** Replies to the ticket and resolves it. */
async function resolveTicket(page, ticket) {
    await see(page, 'tickets', '/o/acme/tickets');
    await see(page, 'ticket', `/o/acme/tickets/${ticket}`);
    assert.match(await page.locator('h1').innerText(), /The fuel <script>alert\(1\)<\/script> leaks/, 'shown as text');
    await page.getByLabel('Text (Markdown)').last().fill('Tighten **the valve**.');
    await page.getByRole('button', { name: 'Send and resolve' }).click();
    await page.locator('article', { hasText: 'Tighten the valve.' }).waitFor();
    const now = await api(page, 'GET', `/tickets/${ticket}`);
    assert.equal(now.status, 'resolved');
    await see(page, 'ticket-replied');
}

/** Publishes version 2, with its impact on users in progress. */
async function publishSecondVersion(page, id) {
    await page.goto(at(`/o/acme/walkthroughs/${id}`));
    await row(page, 'Fuel').click();
    await field(page, 'content').fill('Fill the tank.');
    await until(page, () => draft(page, id), (it) => it.steps.some((step) => step.content === 'Fill the tank.'), 'saved');
    const said = await publish(page, id, 'publish-2');
    assert.match(said, /1 end user in progress stays on their current version[^]*If they move to version \d+: 1 loses nothing/, said);
    const versions = await api(page, 'GET', `/walkthroughs/${id}/versions`);
    assert.equal(versions.items[0].number, 2);
    await see(page, 'versions', `/o/acme/walkthroughs/${id}/versions`);
}

/** Drops a file, checks the dry run and imports it. */
async function importFile(page) {
    await page.goto(at('/o/acme/walkthroughs/import'));
    const drop = await page.evaluateHandle(() => {
        const data = new DataTransfer();
        data.items.add(new File(['# Land a rocket\n\n## Brake\n\nGently.\n\n## Open the hatch\n\nPush.\n'], 'land.md', { type: 'text/markdown' }));
        return data;
    });
    await page.locator('[data-drop]').dispatchEvent('drop', { dataTransfer: drop });
    await page.locator('[data-report]', { hasText: 'Land a rocket' }).waitFor();
    await see(page, 'import');
    await main(page).getByRole('button', { name: /^Import/ }).last().click();
    // The page opens the editor of the imported walkthrough.
    await page.waitForURL(/\/walkthroughs\/wt_/);
    await until(page, () => api(page, 'GET', '/walkthroughs?q=Land'), (it) => it.items.length === 1 && it.items[0].step_count === 2, 'imported');
    await see(page, 'walkthroughs', '/o/acme/walkthroughs');
    await see(page, 'export', `/o/acme/walkthroughs/${(await api(page, 'GET', '/walkthroughs?q=Land')).items[0].id}/export`);
}

/** A second member joins in another browser, and both edit the same step. */
async function invite(page, other, id) {
    await see(page, 'members', '/o/acme/members');
    await page.locator('#invite').getByLabel('Email').fill('ben@example.com');
    await page.getByRole('button', { name: 'Invite', exact: true }).click();
    // The link proves ownership of the email, so it is only sent by email.
    await main(page).getByText('We sent an email with a link').waitFor();
    assert.ok(!(await page.content()).includes('/invite?token='), 'the inviting user does not see the link');
    await see(page, 'members-invited');
    const mail = await fetch(`${given.mail}/link?email=ben%40example.com`);
    const link = (await mail.text()).trim();
    assert.ok(mail.ok, link);
    await other.goto(at(new URL(link).pathname + new URL(link).search));
    await look.at(other, 'invitation');
    await other.getByLabel('Your name').fill('Ben');
    await other.getByLabel('Password').fill(PASSWORD);
    await other.getByRole('button', { name: 'Create account and join' }).click();
    await other.waitForURL(/\/o\/acme/);

    for (const it of [page, other]) {
        await it.goto(at(`/o/acme/walkthroughs/${id}`));
        await row(it, 'Aim').click();
        await it.waitForFunction(() => document.querySelector('[data-form] [name="title"]').value === 'Aim');
    }
    await field(page, 'context_for_agent').fill('From Anna');
    await field(other, 'operations_for_agent').fill('From Ben');
    const aim = async () => (await draft(page, id)).steps.find((step) => step.title === 'Aim');
    await until(page, aim, (it) => it.context_for_agent === 'From Anna' && it.operations_for_agent === 'From Ben', 'both');
    await Promise.all([page, other].map((it) => it.context().setOffline(true)));
    await field(page, 'content').fill('To the moon.');
    await field(other, 'content').fill('To the sun.');
    await page.context().setOffline(false);
    await until(page, aim, (it) => it.content === 'To the moon.', 'the first is saved');
    await other.context().setOffline(false);
    await other.locator('.conflict').waitFor();
    assert.equal((await aim()).content, 'To the moon.', 'nothing is overwritten');
    await see(other, 'editor-conflict');
    await other.getByRole('button', { name: 'Keep my version' }).click();
    await until(page, aim, (it) => it.content === 'To the sun.', 'resolved');
    // Pages that a member cannot open are not linked and return 403.
    assert.equal(await other.locator('nav.side a', { hasText: 'API keys' }).count(), 0);
    assert.equal((await other.goto(at('/o/acme/api-keys'))).status(), 403);
    await look.at(other, 'forbidden');
}

/** Checks the remaining pages. */
async function checkRemainingPages(page) {
    await page.goto(at('/o/acme/api-keys'));
    await page.locator('main form').first().getByLabel('Name').fill('CI');
    await page.locator('main form').first().locator('button[type="submit"]').click();
    await page.locator('.copy code', { hasText: 'wpk_' }).first().waitFor();
    await see(page, 'api-key-created');
    await see(page, 'api-keys', '/o/acme/api-keys');
    for (const [name, path] of [['overview', '/o/acme'], ['servers', '/o/acme/servers'], ['audit', '/o/acme/audit'], ['settings', '/o/acme/settings'],
        ['account', '/account'], ['reference', '/api/reference']]) {
        await see(page, name, path);
    }
    await page.goto(at('/o/acme/webhooks'));
    await see(page, 'webhooks');
    assert.equal((await page.goto(at('/o/acme/nothing'))).status(), 404);
    await look.at(page, 'not-found');
}

/** Checks that no link on the visited pages is broken. */
async function followLinks(page) {
    await page.goto(at('/o/acme'));
    for (const link of links) {
        const status = await page.evaluate(async (link) => (await fetch(link, { headers: { Accept: 'text/html' } })).status, link);
        assert.ok(status < 400, `${link}: ${status}`);
    }
    console.log(`${links.size} links checked; ${look.seen.length} pages checked`);
}

const browser = await launch(given.chromium);
try {
    const page = await open(browser);
    const other = await open(browser);
    await signUp(page);
    const server = await makeServer(page);
    const id = await write(page);
    await publish(page, id, 'publish');
    await assign(page, server, id);
    const ticket = await play(page, id);
    await checkAnalytics(page, id);
    await resolveTicket(page, ticket);
    await publishSecondVersion(page, id);
    await importFile(page);
    await invite(page, other, id);
    await checkRemainingPages(page);
    await followLinks(page);
    for (const it of [page, other]) {
        // The browser also reports requests that the story itself interrupted or that are rejected as expected.
        const unexpected = it.problems.filter((problem) => !/net::ERR_|status of (401|403|404|412)/.test(problem));
        assert.deepEqual(unexpected, []);
    }
} catch (error) {
    await showPages(browser, given.screenshots, 'failed');
    throw error;
} finally {
    await browser.close();
}
