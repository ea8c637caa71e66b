// Checks pages on a phone and a desktop, in the light and dark scheme, for accessibility, and takes screenshots.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = { 375: { width: 375, height: 812 }, 1280: { width: 1280, height: 800 } };

/** Checks the pages of one scenario. Screenshots are saved in `folder`. */
export class Looker {
    constructor(folder, scenario) {
        this.folder = folder;
        this.scenario = scenario;
        this.seen = [];
    }

    /** Checks the open page in every size and colour scheme. `name` is part of the file names. */
    async at(page, name) {
        await mkdir(this.folder, { recursive: true });
        const before = page.viewportSize();
        for (const [width, size] of Object.entries(SIZES)) {
            await page.setViewportSize(size);
            for (const colorScheme of ['light', 'dark']) {
                await page.emulateMedia({ colorScheme });
                const file = `${this.scenario}-${name}-${width}-${colorScheme}.png`;
                await page.screenshot({ path: join(this.folder, file), fullPage: true });
                await this.check(page, file);
            }
        }
        await page.setViewportSize(before);
        await page.emulateMedia({ colorScheme: null });
        this.seen.push(name);
    }

    async check(page, file) {
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        assert.ok(overflow <= 0, `${file}: the page is ${overflow}px wider than the window`);
        // Injected through the debugger, which bypasses the page's content security policy.
        await page.evaluate(`${axe}; undefined`);
        // The rule for WCAG 2.2, 2.5.8 (target size) is off by default.
        const { violations } = await page.evaluate(() => window.axe.run({ rules: { 'target-size': { enabled: true } } }));
        const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        const problems = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
        assert.deepEqual(problems, [], file);
    }
}
