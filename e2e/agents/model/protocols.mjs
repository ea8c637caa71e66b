// The protocols that the model speaks. Each has `matches(path)`, `read(body)` and `write(reply, answer, request)`:
// `read` returns the input of the model, `{ system, tools: [{ name, description }], results }`.

import { anthropic } from './anthropic.mjs';
import { chat } from './chat.mjs';
import { gemini } from './gemini.mjs';
import { responses } from './responses.mjs';

export const PROTOCOLS = { anthropic, chat, gemini, responses };
