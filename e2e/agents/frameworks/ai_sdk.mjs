// The AI SDK with its MCP client, and Anthropic's messages.

import { createAnthropic } from '@ai-sdk/anthropic';
import { auth, createMCPClient } from '@ai-sdk/mcp';
import { stepCountIs, streamText } from 'ai';
import { config, headers, REDIRECT, signIn, store, TURNS } from './run_config.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;

/** An OAuth client that stores everything in files. The SDK requires programs to provide one. */
const provider = {
    redirectUrl: REDIRECT,
    clientMetadata: {
        client_name: 'Agent framework',
        redirect_uris: [REDIRECT],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
    },
    clientInformation: () => store.get('client'),
    isClientInformationDynamicallyRegistered: () => true,
    saveClientInformation: (client) => store.set('client', client),
    authorizationServerInformation: () => store.get('server'),
    saveAuthorizationServerInformation: (server) => store.set('server', server),
    tokens: () => store.get('tokens'),
    saveTokens: (tokens) => store.set('tokens', tokens),
    saveCodeVerifier: (verifier) => store.set('verifier', verifier),
    codeVerifier: () => store.get('verifier'),
    state: () => crypto.randomUUID(),
    saveState: (state) => store.set('state', state),
    storedState: () => store.get('state'),
    async redirectToAuthorization(url) {
        this.callback = await signIn(url);
    },
};

/** Signs in before the program connects, unless an earlier process has already done so. */
async function authorize() {
    if (!store.get('tokens') && (await auth(provider, { serverUrl: config.url })) === 'REDIRECT') {
        const [code, state, issuer] = ['code', 'state', 'iss'].map((name) => provider.callback.get(name));
        const callback = { authorizationCode: code, callbackState: state, callbackIssuer: issuer };
        await auth(provider, { serverUrl: config.url, ...callback });
    }
    return provider;
}

const authProvider = config.user ? await authorize() : undefined;
const client = await createMCPClient({ transport: { type: 'http', url: config.url, headers, authProvider } });
const anthropic = createAnthropic({ baseURL: `${config.model}/v1`, apiKey: 'dummy' });
const result = streamText({
    model: anthropic('claude-stub'),
    system: 'You guide the user.',
    tools: await client.tools(),
    stopWhen: stepCountIs(TURNS),
    prompt: 'go',
});
console.log(await result.text);
await client.close();
