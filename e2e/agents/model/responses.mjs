// OpenAI responses, https://platform.openai.com/docs/api-reference/responses

import { result } from './seen.mjs';
import { textOf } from './text.mjs';

const USAGE = {
    input_tokens: 1,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: 1,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: 2,
};

/** Returns the functions, including those in a namespace, which the model calls by namespace and name. */
function functions(tools, namespace) {
    return tools.flatMap((tool) => {
        if (tool.type === 'namespace') {
            return functions(tool.tools, tool.name);
        }
        return tool.type === 'function' ? [{ name: tool.name, description: tool.description, namespace }] : [];
    });
}

export const responses = {
    matches: (path) => path.endsWith('/responses'),

    read(body) {
        const items = typeof body.input === 'string' ? [] : body.input;
        const messages = items.filter(({ role }) => role === 'system' || role === 'developer');
        const namespaces = (body.tools ?? []).filter(({ type }) => type === 'namespace');
        return {
            // Some clients put `instructions` into the description of the tools' namespace.
            system: [body.instructions, ...messages.map(({ content }) => content), ...namespaces.map((it) => it.description)]
                .map(textOf)
                .join('\n'),
            tools: functions(body.tools ?? []),
            results: items.filter(({ type }) => type === 'function_call_output').map(({ output }) => result(output)),
        };
    },

    write(reply, { call, text }, { body, id }) {
        const item = call
            ? {
                  id: `fc_${id}`,
                  type: 'function_call',
                  status: 'completed',
                  call_id: `call_${id}`,
                  name: call.tool.name,
                  namespace: call.tool.namespace,
                  arguments: JSON.stringify(call.arguments),
              }
            : {
                  id: `msg_${id}`,
                  type: 'message',
                  status: 'completed',
                  role: 'assistant',
                  content: [{ type: 'output_text', text, annotations: [] }],
              };
        const response = {
            id: `resp_${id}`,
            object: 'response',
            created_at: 0,
            status: 'completed',
            model: body.model,
            output: [item],
            parallel_tool_calls: false,
            tool_choice: 'auto',
            tools: [],
            usage: USAGE,
        };
        if (!body.stream) {
            reply.json(response);
            return;
        }
        let sequence_number = 0;
        const send = (type, data) => reply.event({ type, sequence_number: sequence_number++, ...data }, type);
        const at = { item_id: item.id, output_index: 0 };
        send('response.created', { response: { ...response, status: 'in_progress', output: [], usage: null } });
        if (call) {
            send('response.output_item.added', { output_index: 0, item: { ...item, arguments: '', status: 'in_progress' } });
            send('response.function_call_arguments.delta', { ...at, delta: item.arguments });
            send('response.function_call_arguments.done', { ...at, name: item.name, arguments: item.arguments });
        } else {
            const empty = { type: 'output_text', text: '', annotations: [] };
            const part = { ...at, content_index: 0 };
            send('response.output_item.added', { output_index: 0, item: { ...item, content: [], status: 'in_progress' } });
            send('response.content_part.added', { ...part, part: empty });
            send('response.output_text.delta', { ...part, delta: text, logprobs: [] });
            send('response.output_text.done', { ...part, text, logprobs: [] });
            send('response.content_part.done', { ...part, part: item.content[0] });
        }
        send('response.output_item.done', { output_index: 0, item });
        send('response.completed', { response });
        reply.end();
    },
};
