// Looks at pages: on a phone and on a desk, in light and in dark; for barriers, and with screenshots.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SIZES = { 375: { width: 375, height: 812 }, 1280: { width: 1280, height: 800 } };

/** What looks at the pages of one scenario; the screenshots go into `folder`. */
export class Looker {
    constructor(folder, scenario) {
        this.folder = folder;
        this.scenario = scenario;
        this.seen = [];
    }

    /** Looks at the page that is open, which the file's name calls `name`, in every size and colour scheme. */
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
        // By the debugger, which the policy of the page does not concern.
        await page.evaluate(`${axe}; undefined`);
        const { violations } = await page.evaluate(() => window.axe.run());
        const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
        const told = grave.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
        assert.deepEqual(told, [], file);
    }
}
