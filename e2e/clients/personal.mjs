// A client that identifies its user only by the URL: it selects the first walkthrough, plays some steps, prints one line
// of JSON for each, and then waits until it is terminated. It stores nothing between runs.
//
// usage: personal.mjs URL STEPS

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, steps] = process.argv.slice(2);
// Ends even if the test does not terminate it.
setTimeout(() => process.exit(1), 120_000);

const settings = { versionNegotiation: { mode: { pin: '2026-07-28' } } };
const client = new Client({ name: 'waypost-e2e-personal', version: '1.0.0' }, settings);
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

async function call(name, args) {
    const { structuredContent, isError } = await client.callTool({ name, arguments: args });
    if (isError) throw new Error(JSON.stringify(structuredContent));
    return structuredContent;
}

function printProgress({ walkthrough, progress, step, progress_handle }) {
    console.log(JSON.stringify({ slug: walkthrough.slug, ...progress, position: step?.position, progress_handle }));
}

const { walkthroughs } = await call('list_walkthroughs', {});
printProgress(await call('select_walkthrough', { walkthrough_id: walkthroughs[0].id }));
for (let n = 0; n < Number(steps); n += 1) printProgress(await call('next_walkthrough_step', {}));
console.log('waiting');
