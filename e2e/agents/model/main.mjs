// The scripted model of an agent: answers each request with the next call of a plan.
//
// usage: main.mjs PLAN.json LOG.jsonl
//
// Listens on a free loopback port. Prints `listening on http://…`, `held` when it reaches the end of a plan that ends
// with `hang`, and `failed: …` if it cannot follow the plan. Logs each request as one line: the input of the model and
// its answer.

import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Plan } from './plan.mjs';
import { PROTOCOLS } from './protocols.mjs';
import { describe } from './seen.mjs';

// More than any agent sends.
const MAX_BYTES = 16 * 1024 * 1024;

const [planFile, logFile] = process.argv.slice(2);
const plan = new Plan(planFile);
let requests = 0;

/** Writes an answer, as JSON or as server-sent events. */
class Reply {
    constructor(response) {
        this.response = response;
    }

    json(body, status = 200) {
        this.response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    }

    event(data, name) {
        if (!this.response.headersSent) {
            this.response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
        }
        const text = typeof data === 'string' ? data : JSON.stringify(data);
        this.response.write(`${name ? `event: ${name}\n` : ''}data: ${text}\n\n`);
    }

    end() {
        this.response.end();
    }
}

async function readBody(request) {
    const chunks = [];
    let size = 0;
    for await (const chunk of request) {
        size += chunk.length;
        if (size > MAX_BYTES) {
            throw new Error('the request is too large');
        }
        chunks.push(chunk);
    }
    return size === 0 ? {} : JSON.parse(Buffer.concat(chunks));
}

function log(line) {
    appendFileSync(logFile, `${JSON.stringify(line)}\n`);
}

async function serve(request, reply) {
    const { pathname: path } = new URL(request.url, 'http://localhost');
    const [name, protocol] = Object.entries(PROTOCOLS).find(([, it]) => it.matches(path)) ?? [];
    if (!protocol || request.method !== 'POST') {
        log({ unknown: `${request.method} ${path}` });
        reply.json({ error: { message: `the model has no ${request.method} ${path}` } }, 404);
        return;
    }
    const body = await readBody(request);
    const id = ++requests;
    const stream = Boolean(body.stream) || path.endsWith(':streamGenerateContent');
    const seen = protocol.read(body);
    const { system, tools, results } = seen;
    const line = { protocol: name, path, stream, system, tools, results: results.map(describe) };
    let answer;
    try {
        answer = plan.answer(seen);
    } finally {
        log({ ...line, answer });
    }
    if (answer.hang) {
        console.log('held');
        return;
    }
    protocol.write(reply, answer, { body, path, id });
}

const server = createServer((request, response) => {
    const reply = new Reply(response);
    serve(request, reply).catch((error) => {
        console.log(`failed: ${error.message}`);
        log({ failed: error.stack });
        if (!response.headersSent) {
            reply.json({ error: { message: error.message } }, 400);
        }
    });
});
server.listen(0, '127.0.0.1', () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
