// The identity provider of an organisation: `oidc-provider` on loopback, with its development pages.
// Every start uses a new signing key. usage: provider.mjs PORT REDIRECT_URI…

import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [port, ...redirectUris] = process.argv.slice(2);
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };

// Suppresses the warnings about development use.
console.warn = () => {};
console.info = () => {};

const server = createServer();
await new Promise((resolve) => server.listen(Number(port), '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
    clients: [{ client_id: 'waypost', client_secret: 'the client secret', redirect_uris: redirectUris }],
    // Every login name exists and has a verified email with the same local part.
    findAccount: (_, login) => ({
        accountId: login,
        claims: () => ({ sub: login, name: `${login} of Acme`, email: `${login}@example.com`, email_verified: true }),
    }),
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    // Includes the email in the ID token too, like large providers do.
    conformIdTokenClaims: false,
    cookies: { keys: [randomUUID()] },
    jwks: { keys: [key] },
});
provider.on('server_error', (_, error) => console.error(error));
server.on('request', provider.callback());
console.log(`listening on ${issuer}`);
