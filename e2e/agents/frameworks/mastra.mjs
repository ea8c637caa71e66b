// Mastra's agent with its MCP client, and OpenAI's chat completions.

import { Agent } from '@mastra/core/agent';
import { MCPClient, MCPOAuthClientProvider } from '@mastra/mcp';
import { config, headers, open, store, TURNS } from './run_config.mjs';

/** Mastra's OAuth client does not register itself: a developer does this once, manually. */
async function register(metadata) {
    if (!store.get('client')) {
        const endpoint = config.url.replace(/\/mcp$/, '/oauth/register');
        const body = JSON.stringify(metadata);
        const response = await fetch(endpoint, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
        const { client_id, client_id_issued_at } = await response.json();
        store.set('client', { client_id, client_id_issued_at, issuer: config.url.replace(/\/mcp$/, '') });
    }
    return store.get('client');
}

async function oauth() {
    const redirectUrl = 'http://127.0.0.1:33420/callback';
    const clientMetadata = {
        client_name: 'Agent framework',
        redirect_uris: [redirectUrl],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
    };
    const clientInformation = await register(clientMetadata);
    const storage = {
        get: (key) => store.get(encodeURIComponent(key)),
        set: (key, value) => store.set(encodeURIComponent(key), value),
        delete: (key) => store.set(encodeURIComponent(key), undefined),
    };
    const options = { redirectUrl, clientMetadata, clientInformation, storage, onRedirectToAuthorization: open };
    return new MCPOAuthClientProvider(options);
}

const server = { url: new URL(config.url), requestInit: { headers } };
if (config.user) {
    server.authProvider = await oauth();
}
const client = new MCPClient({ servers: { wp: server } });
if (config.user) {
    await client.authenticate('wp');
}
const agent = new Agent({
    id: 'guide',
    name: 'Guide',
    instructions: 'You guide the user.',
    model: { id: 'stub/stub', url: `${config.model}/v1`, apiKey: 'dummy' },
    tools: await client.listTools(),
});
const result = await agent.stream('go', { maxSteps: TURNS });
console.log(await result.text);
await client.disconnect();
