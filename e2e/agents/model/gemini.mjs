// Gemini, https://ai.google.dev/api/generate-content: `generateContent`, `streamGenerateContent` and `countTokens`.

import { result } from './seen.mjs';
import { textOf } from './text.mjs';

const USAGE = { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 };

export const gemini = {
    matches: (path) => /:(generateContent|streamGenerateContent|countTokens)$/.test(path),

    read(body) {
        const parts = (body.contents ?? []).flatMap((content) => content.parts ?? []);
        const declared = (body.tools ?? []).flatMap((tool) => tool.functionDeclarations ?? []);
        const responses = parts.flatMap((part) => part.functionResponse ?? []);
        return {
            // Gemini CLI passes part of its instructions as the user's first message.
            system: [body.systemInstruction?.parts, parts.filter((part) => 'text' in part)].map(textOf).join('\n'),
            tools: declared.map(({ name, description }) => ({ name, description })),
            results: responses.map(({ response, parts: more }) => result(more ? [response, more] : response)),
        };
    },

    write(reply, { call, text }, { body, path, id }) {
        if (path.endsWith(':countTokens')) {
            reply.json({ totalTokens: 1 });
            return;
        }
        const structured = body.generationConfig?.responseMimeType === 'application/json';
        const part = call
            ? { functionCall: { id: `call_${id}`, name: call.tool.name, args: call.arguments } }
            : { text: structured ? '{}' : text };
        const candidate = { content: { role: 'model', parts: [part] }, finishReason: 'STOP', index: 0 };
        const response = { candidates: [candidate], usageMetadata: USAGE, modelVersion: 'stub', responseId: `r_${id}` };
        if (path.endsWith(':streamGenerateContent')) {
            reply.event(response);
            reply.end();
        } else {
            reply.json(response);
        }
    },
};
