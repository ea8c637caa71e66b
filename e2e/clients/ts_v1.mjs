// The TypeScript client of version 1 (`@modelcontextprotocol/sdk`), in every revision that it takes from a server.

import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { AjvJsonSchemaValidator } from '@modelcontextprotocol/sdk/validation/ajv';
import { play, words } from './play.mjs';

// `2024-10-07` is a draft that this client still takes and that Waypost does not speak: the answer is the newest one.
const REVISIONS = ['2024-10-07', '2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];
const { url, era } = words(['legacy', ...REVISIONS]);
const unknown = era === 'legacy' || era === '2024-10-07';

/** It always asks for the newest revision that it knows; this one asks for an older one. */
class Transport extends StreamableHTTPClientTransport {
    async send(message, options) {
        if (message.method === 'initialize' && era !== 'legacy') {
            message = { ...message, params: { ...message.params, protocolVersion: era } };
        }
        return super.send(message, options);
    }
}

async function connect({ sessionId, version }) {
    // Counts what the client itself validates.
    const own = new AjvJsonSchemaValidator();
    let validated = 0;
    const jsonSchemaValidator = {
        getValidator(schema) {
            const validate = own.getValidator(schema);
            return (value) => {
                validated += 1;
                return validate(value);
            };
        },
    };
    const client = new Client({ name: 'waypost-e2e-ts-v1', version: '1.0.0' }, { jsonSchemaValidator });
    const transport = new Transport(new URL(url), { sessionId });
    await client.connect(transport);
    if (sessionId) {
        transport.setProtocolVersion(version);
    }
    const { tools } = await client.listTools();
    return {
        version: transport.protocolVersion,
        sessionId: transport.sessionId,
        tools: async () => tools,
        async call(name, args) {
            const before = validated;
            const result = await client.callTool({ name, arguments: args });
            assert.equal(validated, before + 1, 'the client validates every structured content');
            return result;
        },
        prompts: async () => (await client.listPrompts()).prompts,
        prompt: (name) => client.getPrompt({ name }),
        resources: async () => (await client.listResources()).resources,
        resource: (uri) => client.readResource({ uri }),
        close: () => client.close(),
    };
}

await play({
    client: 'typescript @modelcontextprotocol/sdk 1.32.2',
    era,
    expected: unknown ? '2025-11-25' : era,
    keepsSession: true,
    connect,
});
