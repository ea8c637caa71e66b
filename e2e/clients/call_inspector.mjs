// The Inspector's command line calls tools and prints their results, one line of JSON each. Every call is a process.
//
// usage: call_inspector.mjs URL CALLS, with the token in MCP_TOKEN. CALLS is a JSON list of {name, arguments}.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(
    new URL('node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js', import.meta.url),
);
const [url, calls] = process.argv.slice(2);
// The Inspector stores files in the home folder, so it gets a temporary one.
const home = mkdtempSync(join(tmpdir(), 'waypost-inspector-'));
for (const { name, arguments: args } of JSON.parse(calls)) {
    const method = ['--method', 'tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args)];
    const options = ['--header', `Authorization: Bearer ${process.env.MCP_TOKEN}`, '--format', 'json', '-q'];
    const child = spawnSync(process.execPath, [program, '--cli', url, ...method, ...options], {
        env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home },
        encoding: 'utf8',
        maxBuffer: 64 * 1024 * 1024,
    });
    // The exit code is also 5 for an error result, which is still printed.
    if (child.status !== 0 && !(child.status === 5 && child.stdout)) {
        throw new Error(`${name}: ${child.status} ${child.stderr}`);
    }
    console.log(JSON.stringify(JSON.parse(child.stdout).result));
}
rmSync(home, { recursive: true });
