// Measures the editor in a real browser, and uses lists on a phone. usage: performance.mjs JSON
//
// The members of JSON: `chromium`, the executable; `url` of a new installation; `setup`, the path of its setup page;
// `scenario`, the name of one of the functions in `scenarios`.

import assert from 'node:assert/strict';
import { launch, open } from '../browser/browser.mjs';
import { api, endAfter, setUp } from './console.mjs';

const given = JSON.parse(process.argv[2]);
const STEPS = 100;
const MAX_KILOBYTES = 200;
const MAX_GAP_MS = 1_000;

endAfter(4);

/** Returns about `length` characters of text that is neither repetitive nor random: words in a fixed pseudo-random order. */
function prose(seed, length) {
    const words = `the of and to in is that for it as with on be at by this from or are an which you not have can if
        server file service command window value table option user key report folder branch token network address example
        project deploy install configure check compare write open close start stop select confirm delete restore measure
        before after while until every other another first last large small empty complete careful expected running local`.split(/\s+/);
    let [text, state] = ['', seed + 1];
    while (text.length < length) {
        state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
        text += words[Math.floor(state / 65_536) % words.length] + (state % 11 === 0 ? '.\n\n' : ' ');
    }
    return text.trim();
}

async function createWalkthrough(page, title, steps) {
    const { id } = await api(page, 'POST', '/walkthroughs', { title, type: 'course' });
    for (let n = 0; n < steps; n += 1) {
        const step = { title: `Step ${n + 1}`, content: prose(n, 1_200), introduction_for_agent: prose(n + 1_000, 200) };
        await api(page, 'POST', `/walkthroughs/${id}/steps`, step);
    }
    return id;
}

/** Loads the editor with an empty cache and adds up the received bytes, including headers. */
async function loadsLongWalkthroughsQuickly(page) {
    const id = await createWalkthrough(page, 'A long walkthrough', STEPS);
    const cdp = await page.context().newCDPSession(page);
    await cdp.send('Network.enable');
    await cdp.send('Network.clearBrowserCache');
    const [urls, sizes] = [new Map(), []];
    cdp.on('Network.requestWillBeSent', ({ requestId, request }) => urls.set(requestId, request.url));
    cdp.on('Network.loadingFinished', ({ requestId, encodedDataLength }) => sizes.push([encodedDataLength, urls.get(requestId)]));
    await page.goto(`${given.url}/o/acme/walkthroughs/${id}`);
    await page.locator('.step-open').nth(STEPS - 1).waitFor({ state: 'attached' });
    await page.locator('[data-read] .markdown p').first().waitFor();
    await page.waitForLoadState('networkidle');
    const kilobytes = sizes.reduce((sum, [size]) => sum + size, 0) / 1_000;
    const list = sizes.sort(([a], [b]) => b - a).map(([size, url]) => `${size} ${url}`).join('\n');
    console.log(`the editor of ${STEPS} steps: ${sizes.length} requests, ${kilobytes.toFixed(1)} kB`);
    assert.ok(urls.size > 10 && sizes.length > 10, `too few requests were measured:\n${list}`);
    assert.ok(kilobytes <= MAX_KILOBYTES, `${kilobytes} kB:\n${list}`);
}

/** Types without a pause and records when the preview changes. */
async function updatesThePreviewWhileTyping(page) {
    const id = await createWalkthrough(page, 'A walkthrough', 3);
    await page.goto(`${given.url}/o/acme/walkthroughs/${id}`);
    await page.locator('[data-read] .markdown p').first().waitFor();
    const content = page.locator('[data-form] [name="content"]');
    await content.fill('');
    await page.locator('[data-read] .markdown').waitFor({ state: 'detached' });
    await page.evaluate(() => {
        window.updates = [];
        const text = () => document.querySelector('[data-read]').textContent;
        let shown = text();
        new MutationObserver(() => {
            if (text() === shown) return;
            shown = text();
            window.updates.push(performance.now());
        }).observe(document.querySelector('[data-read]'), { childList: true, subtree: true });
    });
    await content.focus();
    const begin = await page.evaluate(() => performance.now());
    // The keys follow each other faster than the delay after which a pause updates the preview.
    const [text, delay] = [prose(7, 80).replaceAll('\n', ' '), 75];
    await page.keyboard.type(text, { delay });
    const end = await page.evaluate(() => performance.now());
    const updates = await page.evaluate(() => window.updates);
    const moments = [begin, ...updates.filter((at) => at < end), end];
    const gaps = moments.slice(1).map((at, index) => at - moments[index]);
    console.log(`${updates.length} updates in ${Math.round(end - begin)} ms, at most ${Math.round(Math.max(...gaps))} ms apart`);
    assert.ok(end - begin > 4 * MAX_GAP_MS, 'the typing takes long enough');
    // If the machine is busy with other tests, the key presses are delayed as well.
    const slowness = Math.max(1, (end - begin) / (text.length * delay * 1.25));
    assert.ok(Math.max(...gaps) <= MAX_GAP_MS * slowness, `the preview was not updated every second: ${gaps.map(Math.round)}`);
}

/** Sorts the list and selects all of its rows on a phone. */
async function listsHaveTheirControlsOnPhones(page) {
    await createWalkthrough(page, 'Alpha', 0);
    await createWalkthrough(page, 'Beta', 0);
    await page.setViewportSize({ width: 375, height: 812 });
    await page.goto(`${given.url}/o/acme/walkthroughs`);
    const titles = () => page.locator('.title-cell a').allTextContents();
    assert.deepEqual(await titles(), ['Alpha', 'Beta']);
    const sort = page.locator('a.sort', { hasText: 'Title' });
    assert.ok(await sort.isVisible());
    const { width, height } = await sort.boundingBox();
    assert.ok(width >= 24 && height >= 24, `${width} × ${height}`);
    await sort.click();
    await page.waitForURL(/order=desc/);
    assert.deepEqual(await titles(), ['Beta', 'Alpha']);
    const all = page.locator('[data-bulk-all]');
    const box = await all.boundingBox();
    assert.ok(box && box.x >= 0 && box.x + box.width <= 375, 'the checkbox is on the screen');
    await all.check();
    assert.equal(await page.locator('input[name="ids"]:checked').count(), 2);
    await page.locator('[data-bulk-bar]').waitFor({ state: 'visible' });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 375, `the page is ${wide} pixels wide`);
}

const scenarios = { loadsLongWalkthroughsQuickly, updatesThePreviewWhileTyping, listsHaveTheirControlsOnPhones };
const browser = await launch(given.chromium);
try {
    const page = await open(browser);
    await setUp(page, `${given.url}${given.setup}`);
    await scenarios[given.scenario](page);
    assert.deepEqual(page.problems, []);
} finally {
    await browser.close();
}
