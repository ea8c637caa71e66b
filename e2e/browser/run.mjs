// Runs one scenario. usage: run.mjs KIND SCENARIO JSON
//
// The members of JSON: `chromium`, the executable; `url` of the MCP server; `mail`, the origin that returns one-time
// codes and links (tests/support/user.rs); `provider`, the origin of the organisation's provider, if any;
// `screenshots`, a folder. Some scenarios have further members.

import assert from 'node:assert/strict';
import { launch } from './browser.mjs';
import { Client } from './client.mjs';
import * as custom from './custom.mjs';
import { Looker } from './look.mjs';
import * as people from './people.mjs';
import * as platform from './platform.mjs';

const [kind, scenario, json] = process.argv.slice(2);
const given = JSON.parse(json);
const play = { custom, people, platform }[kind][scenario];

// A hanging browser must not block a build.
setTimeout(() => {
    console.error('the scenario did not finish within two minutes');
    process.exit(1);
}, 120_000).unref();

async function readMail(what, email) {
    const response = await fetch(`${given.mail}/${what}?${new URLSearchParams({ email })}`);
    const text = await response.text();
    assert.ok(response.ok, text);
    return text;
}

const browser = await launch(given.chromium, given.provider);
const clients = [];
try {
    await play({
        browser,
        given,
        look: new Looker(given.screenshots, `${kind}-${scenario}`),
        mail: (email) => readMail('code', email),
        link: (email) => readMail('link', email),
        async client(name) {
            const client = await Client.start(given.url, name);
            clients.push(client);
            return client;
        },
    });
} catch (error) {
    // Shows where the scenario stopped.
    for (const page of browser.contexts().flatMap((context) => context.pages())) {
        const text = await page.locator('body').innerText().catch(() => '');
        console.error(`open: ${page.url()} ${JSON.stringify(page.problems)}\n${text}\n`);
    }
    throw error;
} finally {
    clients.forEach((client) => client.close());
    await browser.close();
}
