// Signs in with the Inspector's command line. Every request is a separate process, which reads the tokens from a file.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { browserEnv, config, play, port } from './play.mjs';

const program = fileURLToPath(
    new URL('../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js', import.meta.url),
);

async function result(...method) {
    const args = [program, '--cli', config.url, '--protocol-era', config.era, '--format', 'json', '-q'];
    args.push('--callback-url', `http://127.0.0.1:${await port()}/oauth/callback`);
    if (config.document) args.push('--client-metadata-url', config.document);
    const child = spawn(process.execPath, [...args, '--method', ...method], {
        env: {
            ...browserEnv(),
            HOME: config.state,
            XDG_CONFIG_HOME: config.state,
            MCP_STORAGE_DIR: config.state,
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
    // The exit code is also 5 for an error result, which is still printed.
    assert.ok(code === 0 || (code === 5 && output.stdout), `${method}: ${code} ${output.stdout} ${output.stderr}`);
    return JSON.parse(output.stdout).result;
}

async function connect() {
    const { protocolVersion } = await result('initialize');
    return {
        version: protocolVersion,
        tools: async () => (await result('tools/list')).tools,
        call: (name, args) => result('tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args)),
        close: async () => {},
    };
}

await play(connect);
