// The Inspector's command line: every request is a separate client, so only the progress handle connects the steps.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { play, parseArguments } from './play.mjs';

const { url, era } = parseArguments(['legacy', 'auto', 'modern']);
const program = fileURLToPath(
    new URL('node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js', import.meta.url),
);
// The Inspector stores files in the home folder, so it gets a temporary one.
const home = await mkdtemp(join(tmpdir(), 'waypost-inspector-'));

/** Runs the command. Returns its exit code and its output. */
async function run(...args) {
    const all = [program, '--cli', url, '--protocol-era', era, ...args, '--format', 'json', '-q'];
    const child = spawn(process.execPath, all, {
        env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home },
        stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr']) {
        child[stream].setEncoding('utf8').on('data', (text) => (output[stream] += text));
    }
    const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
    return { code, ...output };
}

async function result(method, ...args) {
    const { code, stdout, stderr } = await run('--method', method, ...args);
    assert.equal(code, 0, `${method}: ${stderr}`);
    return JSON.parse(stdout).result;
}

/** `tools/list --strict` exits with 6 if a schema is not portable, and prints warnings to stderr. */
async function checkStrict() {
    const { code, stderr } = await run('--method', 'tools/list', '--strict');
    assert.equal(code, 0, stderr);
    assert.match(stderr, /^$|\b0 errors\b/);
}

async function connect() {
    const { protocolVersion } = await result('initialize');
    return {
        version: protocolVersion,
        tools: async () => (await result('tools/list')).tools,
        async call(name, args) {
            const json = JSON.stringify(args);
            const { code, stdout, stderr } = await run(
                '--method', 'tools/call', '--tool-name', name, '--tool-args-json', json,
            );
            // The exit code is also 5 for an error result, which is still printed.
            assert.ok(code === 0 || (code === 5 && stdout), `${name}: ${code} ${stderr}`);
            const toolResult = JSON.parse(stdout).result;
            assert.equal(toolResult.isError === true, code === 5);
            return toolResult;
        },
        prompts: async () => (await result('prompts/list')).prompts,
        prompt: (name) => result('prompts/get', '--prompt-name', name),
        resources: async () => (await result('resources/list')).resources,
        resource: (uri) => result('resources/read', '--uri', uri),
        close: async () => {},
    };
}

try {
    await checkStrict();
    await play({
        client: 'inspector 2.12.0',
        era,
        expected: era === 'legacy' ? '2025-11-25' : '2026-07-28',
        keepsSession: false,
        connect,
    });
} finally {
    await rm(home, { recursive: true, force: true });
}
