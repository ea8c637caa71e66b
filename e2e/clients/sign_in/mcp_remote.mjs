// `mcp-remote` signs in, for a client that only speaks stdio.

import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { fileURLToPath } from 'node:url';
import { browser, given, play, port } from './play.mjs';

// Version 0.1 loses the request during which it is asked to sign in, except its own first one.
const old = given.era === 'mcp-remote-0.1';
const folder = old ? 'mcp-remote-0.1' : 'mcp-remote';
const program = fileURLToPath(new URL(`../node_modules/${folder}/dist/proxy.js`, import.meta.url));

async function connect() {
    const args = [program, given.url, String(await port()), '--host', '127.0.0.1', '--allow-http'];
    args.push('--transport', 'http-only', '--auth-timeout', '60');
    if (!old) args.push('--protocol', given.era);
    if (given.document) args.push('--client-metadata-url', given.document);
    // Its home is where it keeps what it has to keep.
    const env = { ...browser(), HOME: given.state, MCP_REMOTE_CONFIG_DIR: given.state };
    const client = new Client({ name: 'waypost-e2e-mcp-remote', version: '1.0.0' });
    await client.connect(new StdioClientTransport({ command: process.execPath, args, env, stderr: 'inherit' }));
    return {
        version: client.getNegotiatedProtocolVersion(),
        call: (name, args) => client.callTool({ name, arguments: args }),
        close: () => client.close(),
    };
}

await play(connect);
