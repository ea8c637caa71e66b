// Signs in with `mcp-remote`, for a client that only supports stdio.

import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { fileURLToPath } from 'node:url';
import { browserEnv, config, play, port } from './play.mjs';

// Version 0.1 loses any request that requires a sign-in, except its own first request.
const isOldVersion = config.era === 'mcp-remote-0.1';
const folder = isOldVersion ? 'mcp-remote-0.1' : 'mcp-remote';
const program = fileURLToPath(new URL(`../node_modules/${folder}/dist/proxy.js`, import.meta.url));

async function connect() {
    const args = [program, config.url, String(await port()), '--host', '127.0.0.1', '--allow-http'];
    args.push('--transport', 'http-only', '--auth-timeout', '60');
    if (!isOldVersion) args.push('--protocol', config.era);
    if (config.document) args.push('--client-metadata-url', config.document);
    // `mcp-remote` stores its data in the home folder.
    const env = { ...browserEnv(), HOME: config.state, MCP_REMOTE_CONFIG_DIR: config.state };
    const client = new Client({ name: 'waypost-e2e-mcp-remote', version: '1.0.0' });
    await client.connect(new StdioClientTransport({ command: process.execPath, args, env, stderr: 'inherit' }));
    return {
        version: client.getNegotiatedProtocolVersion(),
        tools: async () => (await client.listTools()).tools,
        call: (name, args) => client.callTool({ name, arguments: args }),
        close: () => client.close(),
    };
}

await play(connect);
