// Signs in with version 2 of the TypeScript client, which stores its data in a file.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { config, play, signIn } from './play.mjs';

const ERAS = { legacy: {}, auto: { versionNegotiation: { mode: 'auto' } } };

/** The data that the client stores between its runs. */
class Store {
    file = join(config.state, 'store.json');

    get(name) {
        return existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8'))[name] : undefined;
    }

    set(name, value) {
        const all = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')) : {};
        writeFileSync(this.file, JSON.stringify({ ...all, [name]: value }));
    }
}

class Provider {
    store = new Store();
    // Nothing listens on this port: the simulated user returns the URL to which the browser was redirected.
    redirectUrl = 'http://127.0.0.1:33418/callback';
    clientMetadataUrl = config.document ?? undefined;
    clientMetadata = {
        client_name: 'TypeScript client',
        redirect_uris: [this.redirectUrl],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        token_endpoint_auth_method: 'none',
    };

    state() {
        this.expected = crypto.randomUUID();
        return this.expected;
    }

    clientInformation() {
        return this.store.get('client');
    }

    saveClientInformation(client) {
        this.store.set('client', client);
    }

    tokens() {
        return this.store.get('tokens');
    }

    saveTokens(tokens) {
        this.store.set('tokens', tokens);
    }

    saveCodeVerifier(verifier) {
        this.verifier = verifier;
    }

    codeVerifier() {
        return this.verifier;
    }

    async redirectToAuthorization(url) {
        this.callback = (await signIn(url)).searchParams;
        assert.equal(this.callback.get('state'), this.expected);
    }
}

/** Connects a client and signs in if required. */
async function open(authProvider) {
    const client = new Client({ name: 'waypost-e2e-ts-v2', version: '1.0.0' }, ERAS[config.era]);
    const transport = new StreamableHTTPClientTransport(new URL(config.url), { authProvider });
    try {
        await client.connect(transport);
    } catch (error) {
        if (!(error instanceof UnauthorizedError)) throw error;
        await transport.finishAuth(authProvider.callback);
        return await open(authProvider);
    }
    return { client, transport };
}

async function connect() {
    const authProvider = new Provider();
    const { client, transport } = await open(authProvider);
    return {
        version: client.getNegotiatedProtocolVersion(),
        async call(name, args) {
            try {
                return await client.callTool({ name, arguments: args });
            } catch (error) {
                if (!(error instanceof UnauthorizedError)) throw error;
                await transport.finishAuth(authProvider.callback);
                return await client.callTool({ name, arguments: args });
            }
        },
        close: () => client.close(),
    };
}

await play(connect);
