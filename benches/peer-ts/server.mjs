// The peer: walkthroughs over MCP with the official TypeScript SDK, optimised for speed (see ../README.md). One process
// per core; stateless Streamable HTTP with JSON responses; no framework between Node.js and the SDK.
import cluster from 'node:cluster';
import { createServer } from 'node:http';
import { availableParallelism } from 'node:os';
import { getRequestListener } from '@hono/node-server';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js';
import { CallToolRequestSchema, ListToolsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { AjvJsonSchemaValidator } from '@modelcontextprotocol/sdk/validation/ajv-provider.js';
import { Store } from './store.mjs';
import { TOOLS, call } from './tools.mjs';

const WORKERS = Number(process.env.PEER_WORKERS ?? availableParallelism());
const CONNECTIONS = Number(process.env.PEER_POOL ?? 8);

function worker() {
  const store = new Store(process.env.DATABASE_URL, CONNECTIONS);
  // Shared, because compiling a validator per request would cost more than everything else together.
  const options = { capabilities: { tools: {} }, jsonSchemaValidator: new AjvJsonSchemaValidator() };
  const info = { name: 'peer', version: '1.0.0' };
  const path = /^\/t\/([A-Za-z0-9._~-]{1,128})\/mcp$/;

  const listener = getRequestListener(async (request) => {
    const user = path.exec(new URL(request.url).pathname)?.[1];
    if (user === undefined) return new Response(null, { status: 404 });
    const server = new Server(info, options);
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: TOOLS }));
    server.setRequestHandler(CallToolRequestSchema, ({ params }) => call(store, user, params.name, params.arguments));
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: undefined,
      enableJsonResponse: true,
    });
    await server.connect(transport);
    return transport.handleRequest(request);
  });

  const http = createServer({ keepAliveTimeout: 600_000, noDelay: true }, listener);
  http.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => process.send?.({ port: http.address().port }));
}

if (cluster.isPrimary) {
  let waiting = WORKERS;
  for (let i = 0; i < WORKERS; i++) {
    cluster.fork().on('message', ({ port }) => {
      if (--waiting === 0) console.log(`listening on http://127.0.0.1:${port}`);
    });
  }
  cluster.on('exit', (_worker, code) => {
    if (code) process.exit(code);
  });
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill();
    process.exit(0);
  });
} else {
  worker();
}
