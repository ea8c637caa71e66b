// The TypeScript client of version 2 (`@modelcontextprotocol/client`), in every era and revision that it supports.

import assert from 'node:assert/strict';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { AjvJsonSchemaValidator } from '@modelcontextprotocol/client/validators/ajv';
import { play, parseArguments } from './play.mjs';

const LEGACY_REVISIONS = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];
const { url, era } = parseArguments(['legacy', 'auto', 'modern', ...LEGACY_REVISIONS]);
const isLegacy = era === 'legacy' || LEGACY_REVISIONS.includes(era);
const ERAS = {
    legacy: {},
    auto: { versionNegotiation: { mode: 'auto' } },
    modern: { versionNegotiation: { mode: { pin: '2026-07-28' } } },
};
const settings = ERAS[era] ?? { supportedProtocolVersions: [era] };

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
    const client = new Client({ name: 'waypost-e2e-ts-v2', version: '1.0.0' }, { jsonSchemaValidator, ...settings });
    const transport = new StreamableHTTPClientTransport(new URL(url), { sessionId, protocolVersion: version });
    await client.connect(transport);
    if (!sessionId) {
        assert.equal(client.getProtocolEra(), isLegacy ? 'legacy' : 'modern');
        assert.equal(transport.sessionId !== undefined, isLegacy, 'only the legacy era has sessions');
    }
    const { tools } = sessionId ? { tools: [] } : await client.listTools();
    return {
        version: client.getNegotiatedProtocolVersion(),
        sessionId: transport.sessionId,
        tools: async () => tools,
        async call(name, args) {
            const before = validated;
            const result = await client.callTool({ name, arguments: args });
            // The client does not validate errors, and in a resumed session it has no tool list.
            if (!result.isError && !sessionId) {
                assert.equal(validated, before + 1, 'the client validates every structured content');
            }
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
    client: 'typescript @modelcontextprotocol/client 2.4.0',
    era,
    expected: { legacy: '2025-11-25', auto: '2026-07-28', modern: '2026-07-28' }[era] ?? era,
    keepsSession: isLegacy,
    connect,
});
