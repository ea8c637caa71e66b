// The Inspector's command line signs in. Every request is a process of its own, which finds the tokens in a file.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { browser, given, play, port } from './play.mjs';

const program = fileURLToPath(
    new URL('../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js', import.meta.url),
);

async function result(...method) {
    const args = [program, '--cli', given.url, '--protocol-era', given.era, '--format', 'json', '-q'];
    args.push('--callback-url', `http://127.0.0.1:${await port()}/oauth/callback`);
    if (given.document) args.push('--client-metadata-url', given.document);
    const child = spawn(process.execPath, [...args, '--method', ...method], {
        env: {
            ...browser(),
            HOME: given.state,
            XDG_CONFIG_HOME: given.state,
            MCP_STORAGE_DIR: given.state,
            MCP_INSPECTOR_SECRET_STORE: 'file',
            MCP_AUTO_OPEN_ENABLED: 'true',
        },
        stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr']) {
        child[stream].setEncoding('utf8').on('data', (text) => (output[stream] += text));
    }
    const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
    // 5 also stands for a result that is an error, which is printed all the same.
    assert.ok(code === 0 || (code === 5 && output.stdout), `${method}: ${code} ${output.stdout} ${output.stderr}`);
    return JSON.parse(output.stdout).result;
}

async function connect() {
    const { protocolVersion } = await result('initialize');
    return {
        version: protocolVersion,
        call: (name, args) => result('tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args)),
        close: async () => {},
    };
}

await play(connect);
