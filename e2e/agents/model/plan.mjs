// A plan: the calls that the scripted model makes, one for each of its turns.
//
//     { "steps": [{ "tool": "select_walkthrough", "arguments": { "walkthrough_id": "$walkthrough_id" }, "times": 1 }],
//       "end": "stop" | "hang", "descriptions": { "select_walkthrough": "Starts or …" } }
//
// An argument that starts with `$` refers to a value in the tool results that the model was shown. If it ends with `?`,
// the argument is omitted if the results contain no such value. After the last step, the model stops with a text, or
// never answers, so that the test can kill the agent in the middle of its work.

import { readFileSync } from 'node:fs';
import { currentStep, handle } from './seen.mjs';

const REFERENCES = {
    walkthrough_id: (results) => results.map(({ text }) => /\bwt_[0-9a-z]{12,}/.exec(text)?.[0]).find(Boolean),
    progress_handle: (results) => results.map(handle).findLast(Boolean),
    current_step_id: (results) => results.slice(-1).map(currentStep)[0],
};

function resolve(values, results) {
    const resolved = {};
    for (const [name, value] of Object.entries(values)) {
        if (typeof value !== 'string' || !value.startsWith('$')) {
            resolved[name] = value;
            continue;
        }
        const reference = value.replace(/[$?]/g, '');
        const found = REFERENCES[reference](results);
        if (found !== undefined) {
            resolved[name] = found;
        } else if (!value.endsWith('?')) {
            throw new Error(`none of the tool results shown to the model contains a ${reference}`);
        }
    }
    return resolved;
}

export class Plan {
    constructor(file) {
        const { steps, end, descriptions } = JSON.parse(readFileSync(file, 'utf8'));
        this.steps = steps.flatMap((step) => Array(step.times ?? 1).fill(step));
        this.end = end;
        this.descriptions = descriptions ?? {};
    }

    /**
     * Returns the answer to a request with these tools and results: `{ call: { tool, arguments } }`, `{ text }` or
     * `{ hang: true }`.
     */
    answer({ tools, results }) {
        if (!tools.some(({ name, description }) => /walkthrough/i.test(`${name} ${description}`))) {
            // An additional request by the agent, for example for a session title.
            return { text: 'Walkthrough' };
        }
        const step = this.steps[results.length];
        if (!step) {
            return this.end === 'hang' ? { hang: true } : { text: 'That is the end of the plan.' };
        }
        const tool = this.findTool(tools, step.tool);
        if (!tool) {
            throw new Error(`the tool ${step.tool} was not shown to the model`);
        }
        return { call: { tool, arguments: resolve(step.arguments, results) } };
    }

    /**
     * Finds a tool by the end of its name, because clients prefix tool names. Some clients shorten long names; in that
     * case the description identifies the tool, as for a real model.
     */
    findTool(tools, expected) {
        const normalize = (text) => text?.split(/\s+/).join(' ') ?? '';
        const description = normalize(this.descriptions[expected]);
        const byName = tools.find(({ name }) => name.endsWith(expected));
        return byName ?? tools.find((tool) => description && normalize(tool.description).includes(description));
    }
}
