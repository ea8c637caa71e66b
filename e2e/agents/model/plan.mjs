// A plan: the calls that the scripted model makes, one for each of its turns.
//
//     { "steps": [{ "tool": "select_walkthrough", "arguments": { "walkthrough_id": "$walkthrough_id" }, "times": 1 }],
//       "end": "stop" | "hang", "descriptions": { "select_walkthrough": "Starts or …" } }
//
// An argument that starts with `$` refers to a value in the tool results that the model was shown; with a final `?` the
// argument is left out if the model was shown no such value. After the last step the model stops with a text, or never
// answers, so that the test can end the agent in the middle of its work.

import { readFileSync } from 'node:fs';
import { currentStep, handle } from './seen.mjs';

const REFERENCES = {
    walkthrough_id: (results) => results.map(({ text }) => /\bwt_[0-9a-z]{12,}/.exec(text)?.[0]).find(Boolean),
    progress_handle: (results) => results.map(handle).findLast(Boolean),
    current_step_id: (results) => results.slice(-1).map(currentStep)[0],
};

function resolved(values, results) {
    const known = {};
    for (const [name, value] of Object.entries(values)) {
        if (typeof value !== 'string' || !value.startsWith('$')) {
            known[name] = value;
            continue;
        }
        const reference = value.replace(/[$?]/g, '');
        const found = REFERENCES[reference](results);
        if (found !== undefined) {
            known[name] = found;
        } else if (!value.endsWith('?')) {
            throw new Error(`no tool result that the model was shown has a ${reference}`);
        }
    }
    return known;
}

export class Plan {
    constructor(file) {
        const { steps, end, descriptions } = JSON.parse(readFileSync(file, 'utf8'));
        this.steps = steps.flatMap((step) => Array(step.times ?? 1).fill(step));
        this.end = end;
        this.descriptions = descriptions ?? {};
    }

    /**
     * What the model answers to a request with these tools and results: `{ call: { tool, arguments } }`, `{ text }` or
     * `{ hang: true }`.
     */
    answer({ tools, results }) {
        if (!tools.some(({ name, description }) => /walkthrough/i.test(`${name} ${description}`))) {
            // A side request of the agent, such as one for the session's title.
            return { text: 'Walkthrough' };
        }
        const step = this.steps[results.length];
        if (!step) {
            return this.end === 'hang' ? { hang: true } : { text: 'That is the end of the plan.' };
        }
        const tool = this.find(tools, step.tool);
        if (!tool) {
            throw new Error(`the model was shown no tool ${step.tool}`);
        }
        return { call: { tool, arguments: resolved(step.arguments, results) } };
    }
    /**
     * Clients prefix the names of tools, so a tool is found by the end of its name. Some cut the names that this makes too
     * long; then a model, too, has only the description.
     */
    find(tools, wanted) {
        const words = (text) => text?.split(/\s+/).join(' ') ?? '';
        const description = words(this.descriptions[wanted]);
        const named = tools.find(({ name }) => name.endsWith(wanted));
        return named ?? tools.find((tool) => description && words(tool.description).includes(description));
    }
}
