// The TypeScript client calls tools and prints their results, one line of JSON each.
//
// usage: call.mjs URL CALLS, with the token in MCP_TOKEN. CALLS is a JSON list of {name, arguments}.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, calls] = process.argv.slice(2);
const client = new Client({ name: 'waypost-e2e-calls', version: '1.0.0' }, { versionNegotiation: { mode: 'auto' } });
const headers = { authorization: `Bearer ${process.env.MCP_TOKEN}` };
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
for (const call of JSON.parse(calls)) {
    console.log(JSON.stringify(await client.callTool(call)));
}
await client.close();
