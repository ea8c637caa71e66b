// The TypeScript client of version 1 (`@modelcontextprotocol/sdk`), in every revision that it accepts.

import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { AjvJsonSchemaValidator } from '@modelcontextprotocol/sdk/validation/ajv';
import { play, parseArguments } from './play.mjs';

// `2024-10-07` is a draft that this client still accepts but Waypost does not support: the newest one is negotiated.
const REVISIONS = ['2024-10-07', '2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];
const { url, era } = parseArguments(['legacy', ...REVISIONS]);
const expectsNewest = era === 'legacy' || era === '2024-10-07';

/** A transport that requests an older revision, because the client always requests the newest one that it supports. */
class Transport extends StreamableHTTPClientTransport {
    async send(message, options) {
        if (message.method === 'initialize' && era !== 'legacy') {
            message = { ...message, params: { ...message.params, protocolVersion: era } };
        }
        return super.send(message, options);
    }
}

async function connect({ sessionId, version }) {
    // Counts the validations by the client.
    const validators = new AjvJsonSchemaValidator();
    let validated = 0;
    const jsonSchemaValidator = {
        getValidator(schema) {
            const validate = validators.getValidator(schema);
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
    expected: expectsNewest ? '2025-11-25' : era,
    keepsSession: true,
    connect,
});
