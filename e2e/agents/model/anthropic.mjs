// Anthropic Messages, https://docs.anthropic.com/en/api/messages

import { result } from './seen.mjs';
import { textOf } from './text.mjs';

export const anthropic = {
    matches: (path) => path.endsWith('/messages'),

    read(body) {
        const parts = body.messages.flatMap(({ content }) => (typeof content === 'string' ? [] : content));
        return {
            system: textOf(body.system),
            tools: (body.tools ?? []).map(({ name, description }) => ({ name, description })),
            results: parts.filter(({ type }) => type === 'tool_result').map(({ content }) => result(content)),
        };
    },

    write(reply, { call, text }, { body, id }) {
        const content = call
            ? { type: 'tool_use', id: `toolu_${id}`, name: call.tool.name, input: call.arguments }
            : { type: 'text', text };
        const message = {
            id: `msg_${id}`,
            type: 'message',
            role: 'assistant',
            model: body.model,
            content: [content],
            stop_reason: call ? 'tool_use' : 'end_turn',
            stop_sequence: null,
            usage: { input_tokens: 1, output_tokens: 1 },
        };
        if (!body.stream) {
            reply.json(message);
            return;
        }
        const send = (data) => reply.event(data, data.type);
        const empty = call ? { ...content, input: {} } : { ...content, text: '' };
        const delta = call
            ? { type: 'input_json_delta', partial_json: JSON.stringify(call.arguments) }
            : { type: 'text_delta', text };
        send({ type: 'message_start', message: { ...message, content: [], stop_reason: null } });
        send({ type: 'content_block_start', index: 0, content_block: empty });
        send({ type: 'content_block_delta', index: 0, delta });
        send({ type: 'content_block_stop', index: 0 });
        const stop = { stop_reason: message.stop_reason, stop_sequence: null };
        send({ type: 'message_delta', delta: stop, usage: { output_tokens: 1 } });
        send({ type: 'message_stop' });
        reply.end();
    },
};
