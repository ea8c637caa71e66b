// The TypeScript client of version 2 signs in. What it has to keep is in a file.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, StreamableHTTPClientTransport, UnauthorizedError } from '@modelcontextprotocol/client';
import { given, play, signIn } from './play.mjs';

const ERAS = { legacy: {}, auto: { versionNegotiation: { mode: 'auto' } } };

/** What the client keeps between its runs. */
class Store {
    file = join(given.state, 'store.json');

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
    // Nobody listens there: the user tells where the browser was sent.
    redirectUrl = 'http://127.0.0.1:33418/callback';
    clientMetadataUrl = given.document ?? undefined;
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

/** A client that is connected; it signs in for that where it has to. */
async function open(authProvider) {
    const client = new Client({ name: 'waypost-e2e-ts-v2', version: '1.0.0' }, ERAS[given.era]);
    const transport = new StreamableHTTPClientTransport(new URL(given.url), { authProvider });
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
