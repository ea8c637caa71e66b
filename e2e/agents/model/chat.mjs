// OpenAI chat completions, https://platform.openai.com/docs/api-reference/chat

import { result } from './seen.mjs';
import { textOf } from './text.mjs';

const USAGE = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };

export const chat = {
    matches: (path) => path.endsWith('/chat/completions'),

    read(body) {
        const of = (...roles) => body.messages.filter(({ role }) => roles.includes(role));
        return {
            system: of('system', 'developer').map(({ content }) => textOf(content)).join('\n'),
            tools: (body.tools ?? []).map(({ function: { name, description } }) => ({ name, description })),
            results: of('tool').map(({ content }) => result(content)),
        };
    },

    write(reply, { call, text }, { body, id }) {
        const message = { role: 'assistant', content: call ? null : text };
        if (call) {
            const called = { name: call.tool.name, arguments: JSON.stringify(call.arguments) };
            message.tool_calls = [{ id: `call_${id}`, type: 'function', function: called }];
        }
        const finish_reason = call ? 'tool_calls' : 'stop';
        const head = { id: `chatcmpl-${id}`, created: 0, model: body.model };
        if (!body.stream) {
            const choices = [{ index: 0, message, finish_reason, logprobs: null }];
            reply.json({ ...head, object: 'chat.completion', choices, usage: USAGE });
            return;
        }
        const send = (choices, usage) => reply.event({ ...head, object: 'chat.completion.chunk', choices, usage });
        const tool_calls = message.tool_calls?.map((it, index) => ({ index, ...it }));
        send([{ index: 0, delta: { ...message, tool_calls }, finish_reason: null }]);
        send([{ index: 0, delta: {}, finish_reason }]);
        send([], USAGE);
        reply.event('[DONE]');
        reply.end();
    },
};
