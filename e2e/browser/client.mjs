// A small MCP client with OAuth: it registers, waits for the browser on loopback, gets tokens, and lists and calls tools.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

const ACCEPT = 'application/json, text/event-stream';

async function json(response) {
    const text = await response.text();
    assert.ok(response.ok, `${response.url} returned ${response.status}: ${text}`);
    return JSON.parse(text);
}

/** Returns the result in a response, which is a single message, as JSON or as an event. */
async function readResult(what, response) {
    const text = await response.text();
    assert.equal(response.status, 200, `${what}: ${response.status} ${text}`);
    const data = text.startsWith('{') ? text : /^data: ?(\{.*)$/m.exec(text)[1];
    const { result } = JSON.parse(data);
    assert.ok(result && !result.isError, `${what}: ${data}`);
    return result;
}

export class Client {
    /** Starts a client of the MCP server at `url` that listens for the user's browser. `close()` stops it. */
    static async start(url, name = 'Rocket Studio') {
        const client = new Client();
        client.url = url;
        client.callbacks = [];
        client.waiting = [];
        client.listener = createServer((request, response) => {
            const at = new URL(request.url, client.redirectUri);
            response.setHeader('content-type', 'text/html');
            response.end('<!doctype html><html lang="en"><title>Back</title><p id="back">Back in the application.</p>');
            if (at.pathname !== '/callback') return;
            const next = client.waiting.shift();
            if (next) next(at);
            else client.callbacks.push(at);
        });
        await new Promise((resolve) => client.listener.listen(0, '127.0.0.1', resolve));
        client.redirectUri = `http://127.0.0.1:${client.listener.address().port}/callback`;
        await client.discover();
        const body = { client_name: name, redirect_uris: [client.redirectUri], token_endpoint_auth_method: 'none' };
        const registered = await json(await fetch(client.server.registration_endpoint, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(body),
        }));
        client.id = registered.client_id;
        return client;
    }

    close() {
        this.listener.close();
        this.listener.closeAllConnections();
    }

    async discover() {
        const rejected = await this.post('select_walkthrough', { walkthrough_id: 'wt_any' });
        assert.equal(rejected.status, 401);
        const challenge = rejected.headers.get('www-authenticate');
        const [, metadata] = /resource_metadata="([^"]+)"/.exec(challenge);
        [, this.scope] = /scope="([^"]+)"/.exec(challenge);
        this.resource = await json(await fetch(metadata));
        assert.equal(this.resource.resource, this.url);
        this.issuer = this.resource.authorization_servers[0];
        const issuer = new URL(this.issuer);
        const path = issuer.pathname === '/' ? '' : issuer.pathname;
        this.server = await json(await fetch(`${issuer.origin}/.well-known/oauth-authorization-server${path}`));
        assert.equal(this.server.issuer, this.issuer);
    }

    /** Returns the URL to open in the user's browser. */
    authorize(more = {}) {
        this.verifier = randomBytes(32).toString('base64url');
        this.state = randomBytes(16).toString('base64url');
        const query = new URLSearchParams({
            response_type: 'code',
            client_id: this.id,
            redirect_uri: this.redirectUri,
            scope: this.scope,
            state: this.state,
            resource: this.resource.resource,
            code_challenge: createHash('sha256').update(this.verifier).digest('base64url'),
            code_challenge_method: 'S256',
            ...more,
        });
        return `${this.server.authorization_endpoint}?${query}`;
    }

    /** Waits for the browser and returns the parameters of the callback. */
    async callback() {
        const at = this.callbacks.shift() ?? (await new Promise((resolve) => this.waiting.push(resolve)));
        assert.equal(at.searchParams.get('state'), this.state);
        assert.equal(at.searchParams.get('iss'), this.issuer);
        return at.searchParams;
    }

    /** Waits for the browser and exchanges the code. */
    async tokens() {
        const parameters = await this.callback();
        assert.equal(parameters.get('error'), null, parameters.get('error_description'));
        const tokens = await json(await fetch(this.server.token_endpoint, {
            method: 'POST',
            body: new URLSearchParams({
                grant_type: 'authorization_code',
                code: parameters.get('code'),
                client_id: this.id,
                redirect_uri: this.redirectUri,
                code_verifier: this.verifier,
                resource: this.resource.resource,
            }),
        }));
        assert.equal(tokens.token_type, 'Bearer');
        this.token = tokens.access_token;
    }

    /** Sends a request. */
    send(method, params) {
        return fetch(this.url, {
            method: 'POST',
            headers: {
                'content-type': 'application/json',
                accept: ACCEPT,
                ...(this.token && { authorization: `Bearer ${this.token}` }),
            },
            body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
        });
    }

    post(name, args) {
        return this.send('tools/call', { name, arguments: args });
    }

    /** Calls a tool and returns its structured content. */
    async call(name, args) {
        return (await readResult(name, await this.post(name, args))).structuredContent;
    }

    /** Returns the names of the tools that the server lists. */
    async listTools() {
        const { tools } = await readResult('tools/list', await this.send('tools/list', {}));
        return tools.map(({ name }) => name);
    }

    /** Starts or resumes the first walkthrough and returns the number of completed steps. */
    async begin() {
        const { walkthroughs } = await this.call('list_walkthroughs', {});
        const { progress } = await this.call('select_walkthrough', { walkthrough_id: walkthroughs[0].id });
        return progress.completed;
    }

    /** Completes the current step. */
    async next() {
        await this.call('next_walkthrough_step', {});
    }
}
