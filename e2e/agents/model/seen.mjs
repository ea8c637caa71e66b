// Reads tool results in the form in which the model is shown them. Agents wrap a result in JSON or in a JSON string, or
// put it after a line of text.

/** Yields the objects and strings in a value, including those in strings that are or contain JSON. */
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

/** Parses the JSON in a string, which may follow lines of text. Returns `undefined` if there is none. */
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

/** Returns the structured content of a step result that the model was shown, or `undefined`. */
export function structuredStep({ shown }) {
    for (const part of parts(shown)) {
        if (typeof part === 'object' && 'completed_step_id' in part && 'progress' in part) {
            return part;
        }
    }
    return undefined;
}

/** Returns the text block of a step result that the model was shown, or `undefined`. */
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

/** Returns the ID of the current step in a result, or `undefined`. */
export function currentStep(result) {
    return structuredStep(result)?.step?.id ?? last(result.text, STEP);
}

/** Returns the progress handle in a result, or `undefined`. */
export function handle({ text }) {
    return last(text, HANDLE);
}

/** Returns the log entry of a result: its text, and what the model can read from it. `null` for missing values. */
export function describe(result) {
    return {
        text: result.text,
        structured: structuredStep(result) ?? null,
        block: textStep(result) ?? null,
        step: currentStep(result) ?? null,
        handle: handle(result) ?? null,
    };
}

/** Creates a result: `shown` is the JSON value that the model was shown, `text` the same as one string. */
export function result(shown) {
    return { shown, text: typeof shown === 'string' ? shown : JSON.stringify(shown) };
}
