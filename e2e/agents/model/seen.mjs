// Reads a tool result in the form in which the model is shown it. Agents wrap it: in JSON, in a JSON string, after a line of text.

/** The objects and strings in a value, including those in strings that are or contain JSON. */
function* parts(value) {
    if (Array.isArray(value)) {
        for (const item of value) {
            yield* parts(item);
        }
    } else if (value && typeof value === 'object') {
        yield value;
        yield* parts(Object.values(value));
    } else if (typeof value === 'string') {
        yield value;
        const parsed = embedded(value);
        if (parsed !== undefined) {
            yield* parts(parsed);
        }
    }
}

/** The JSON in a string: the whole string, or from one of its lines to the end. */
function embedded(text) {
    const starts = [0, ...[...text.matchAll(/\n(?=[[{"])/g)].map(({ index }) => index + 1)];
    for (const start of starts) {
        if (/^\s*[[{"]/.test(text.slice(start))) {
            try {
                return JSON.parse(text.slice(start));
            } catch {
                // No JSON starts here.
            }
        }
    }
    return undefined;
}

/** The structured content of a step result in what the model was shown, `undefined` if it was not shown any. */
export function structuredStep({ shown }) {
    for (const part of parts(shown)) {
        if (typeof part === 'object' && 'completed_step_id' in part && 'progress' in part) {
            return part;
        }
    }
    return undefined;
}

/** The text block of a step result in what the model was shown, `undefined` if it was not shown any. */
export function textStep({ shown }) {
    for (const part of parts(shown)) {
        if (typeof part === 'string' && /^(Step \d+ of \d+ |All \d+ steps )/m.test(part) && !part.trimStart().startsWith('{')) {
            return part;
        }
    }
    return undefined;
}

// Between a name and its value there may be quotes, escaped quotes and a colon.
const STEP = /current_step_id\W{1,12}(ws_[0-9a-z]{12,})/g;
const HANDLE = /progress_handle\W{1,12}(wph_[0-9a-z]+)/g;

function last(text, pattern) {
    return [...text.matchAll(pattern)].at(-1)?.[1];
}

/** The ID of the current step that a result shows the model, `undefined` if it shows none. */
export function currentStep(result) {
    return structuredStep(result)?.step?.id ?? last(result.text, STEP);
}

/** The progress handle that a result shows the model, `undefined` if it shows none. */
export function handle({ text }) {
    return last(text, HANDLE);
}

/** The log entry for a result: its raw text, and the two forms of a step result that it may contain. */
export function describe(result) {
    return {
        text: result.text,
        structured: structuredStep(result) ?? null,
        block: textStep(result) ?? null,
        step: currentStep(result) ?? null,
        handle: handle(result) ?? null,
    };
}

/** A result as the protocols pass it on: `shown` is a JSON value, `text` the same as one string. */
export function result(shown) {
    return { shown, text: typeof shown === 'string' ? shown : JSON.stringify(shown) };
}
