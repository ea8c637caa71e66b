// "Try it": an MCP client in the page, which speaks Streamable HTTP with the server's own endpoint on this host.
// It is a client of 2025-11-25: with a handshake, and the session that the server gives. It sends no cookie.

const panel = document.getElementById("try");
const path = panel.dataset.path;
const by = (id) => document.getElementById(`try-${id}`);
const VERSION = "2025-11-25";
const SHOWN = ["content-type", "mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after", "x-request-id"];
const MEANING = {
  401: "The server asks for sign-in (RFC 9728): a client opens the browser now. This panel does not sign in.",
  403: "The server does not let this caller or this page in.",
  404: "The session is not known, there is no server at this address, or this page was open for more than 12 hours. Reload it.",
  429: "Too many calls. Wait as long as Retry-After says.",
};

let next = 1;
let session = null;
let version = null;
let handle = null;
let tools = [];

panel.hidden = false;

/** What a tool server answers with may be JSON, or a stream of events with the answer in one of them. */
function unwrap(kind, text, id) {
  if (!kind.startsWith("text/event-stream")) return text ? JSON.parse(text) : null;
  const messages = text.split(/\r?\n\r?\n/).flatMap((event) => {
    const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
    const joined = data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    return joined ? [JSON.parse(joined)] : [];
  });
  return messages.find((message) => message.id === id) ?? messages.at(-1) ?? null;
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function block(title, lines, body) {
  const text = body === null || body === undefined ? lines : `${lines}\n\n${JSON.stringify(body, null, 2)}`;
  return [element("h3", { textContent: title }), element("pre", { tabIndex: 0 }, element("code", { textContent: text }))];
}

/** Shows one exchange, the newest first. */
function show({ request, sent, status, headers, body, took, failure }) {
  by("nothing").hidden = true;
  const problem = body?.error ?? (body?.result?.isError ? body.result.structuredContent?.error : undefined);
  const fine = !failure && status < 400 && !problem;
  const badge = element("span", { className: `badge ${fine ? "good" : "bad"}`, textContent: failure ? "no answer" : String(status) });
  const name = request.params?.name ? `${request.method} · ${request.params.name}` : request.method;
  const head = element("summary", {}, badge, ` ${name} `, element("span", { className: "soft", textContent: `${took} ms` }));
  const parts = [head];
  const words = failure ?? MEANING[status] ?? problem?.message;
  if (words) parts.push(element("p", { className: fine ? "" : "wrong", textContent: words }));
  const text = body?.result?.content?.find?.((part) => part.type === "text")?.text;
  if (text) parts.push(element("h3", { textContent: "What the agent reads" }), element("pre", { tabIndex: 0, className: "wrap" }, element("code", { textContent: text })));
  parts.push(...block("Request", [`POST ${path}`, ...sent.map(([key, value]) => `${key}: ${value}`)].join("\n"), request));
  if (!failure) parts.push(...block("Answer", [`HTTP ${status}`, ...headers.map(([key, value]) => `${key}: ${value}`)].join("\n"), body));
  for (const open of by("log").querySelectorAll("details[open]")) open.open = false;
  by("log").prepend(element("details", { open: true, className: "exchange" }, ...parts));
}

/** Sends a message; the answer, or null for a notification or a failure. */
async function send(method, params, { notification = false } = {}) {
  const request = { jsonrpc: "2.0", ...(notification ? {} : { id: next++ }), method, ...(params ? { params } : {}) };
  const sent = [["Content-Type", "application/json"], ["Accept", "application/json, text/event-stream"]];
  if (session) sent.push(["Mcp-Session-Id", session]);
  if (version) sent.push(["MCP-Protocol-Version", version]);
  const begun = performance.now();
  const took = () => Math.round(performance.now() - begun);
  try {
    const answer = await fetch(path, { method: "POST", headers: sent, credentials: "omit", body: JSON.stringify(request) });
    const text = await answer.text();
    const headers = SHOWN.filter((name) => answer.headers.has(name)).map((name) => [name, answer.headers.get(name)]);
    session = answer.headers.get("mcp-session-id") ?? session;
    let body = null;
    let failure;
    try {
      body = unwrap(answer.headers.get("content-type") ?? "", text, request.id);
    } catch {
      failure = `The answer is not JSON: ${text.slice(0, 300)}`;
    }
    if (!notification || answer.status >= 400) show({ request, sent, status: answer.status, headers, body, took: took(), failure });
    return { ok: answer.ok && !body?.error, status: answer.status, result: body?.result };
  } catch (error) {
    show({ request, sent, took: took(), failure: `The server gave no answer: ${error.message}` });
    return { ok: false };
  }
}

function state(text) {
  by("state").textContent = text;
}

async function connect() {
  session = version = handle = null;
  by("connect").disabled = true;
  state("Connecting…");
  const clientInfo = { name: "waypost-console", title: "Waypost console", version: "1" };
  const begun = await send("initialize", { protocolVersion: VERSION, capabilities: {}, clientInfo });
  if (begun.ok) {
    version = begun.result.protocolVersion;
    await send("notifications/initialized", undefined, { notification: true });
    const listed = await send("tools/list");
    if (listed.ok) offer(listed.result.tools);
  } else {
    state(begun.status === 401 ? "The server asks for sign-in before anything else." : "The server could not be reached; the answer says why.");
  }
  by("connect").disabled = false;
  by("connect").textContent = "Connect again";
}

function offer(list) {
  tools = list;
  by("form").hidden = tools.length === 0;
  state(tools.length ? `Connected: ${tools.length} tools.` : "Connected. The server lists no tools now: the overview says why.");
  by("tool").replaceChildren(...tools.map((tool) => element("option", { value: tool.name, textContent: tool.title ? `${tool.title} (${tool.name})` : tool.name })));
  choose();
}

const chosen = () => tools.find((tool) => tool.name === by("tool").value);

/** The first type that a schema names and that is not null. */
function kind(schema) {
  const named = schema.type ?? schema.anyOf?.map((one) => one.type);
  return [named].flat().find((type) => type && type !== "null") ?? "string";
}

function field([name, schema], required) {
  const id = `try-arg-${name}`;
  const type = kind(schema);
  const choices = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum ?? (type === "boolean" ? [true, false] : null);
  const input = choices
    ? element("select", {}, element("option", { value: "", textContent: "not given" }), ...choices.filter((value) => value !== null).map((value) => element("option", { value: JSON.stringify(value), textContent: String(value) })))
    : element("input", { type: type === "integer" || type === "number" ? "number" : "text", autocomplete: "off", spellcheck: false });
  input.id = id;
  input.dataset.name = name;
  input.dataset.kind = choices ? "json" : type;
  input.required = required;
  if (name === "progress_handle" && handle) input.value = handle;
  const parts = [element("label", { htmlFor: id, textContent: required ? `${name} (required)` : name }), input];
  if (schema.description) {
    input.setAttribute("aria-describedby", `${id}-about`);
    parts.push(element("p", { className: "hint", id: `${id}-about`, textContent: schema.description }));
  }
  return element("div", { className: "field" }, ...parts);
}

function choose() {
  const tool = chosen();
  if (!tool) return;
  by("about").textContent = tool.description ?? "";
  const required = tool.inputSchema?.required ?? [];
  const properties = Object.entries(tool.inputSchema?.properties ?? {});
  by("fields").replaceChildren(...properties.map((entry) => field(entry, required.includes(entry[0]))));
  by("json").value = JSON.stringify(typed(), null, 2);
}

/** The arguments in the fields: what is empty is not given. */
function typed() {
  const given = [...by("fields").querySelectorAll("[data-name]")].filter((input) => input.value !== "");
  return Object.fromEntries(given.map((input) => {
    if (input.dataset.kind === "json") return [input.dataset.name, JSON.parse(input.value)];
    if (input.type === "number") return [input.dataset.name, Number(input.value)];
    if (["array", "object"].includes(input.dataset.kind)) return [input.dataset.name, JSON.parse(input.value)];
    return [input.dataset.name, input.value];
  }));
}

by("connect").addEventListener("click", connect);
by("tool").addEventListener("change", choose);
by("raw").addEventListener("change", () => {
  const raw = by("raw").checked;
  if (raw) by("json").value = JSON.stringify(typed(), null, 2);
  by("json-field").hidden = !raw;
  by("fields").hidden = raw;
  // A field that cannot be seen must not keep the form from being sent.
  for (const input of by("fields").querySelectorAll("[data-name]")) input.disabled = raw;
});
by("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  delete event.target.dataset.sent;
  const button = event.target.querySelector("button[type=submit]");
  by("wrong").hidden = true;
  let given;
  try {
    given = by("raw").checked ? JSON.parse(by("json").value || "{}") : typed();
  } catch (error) {
    by("wrong").textContent = `The arguments are not JSON: ${error.message}`;
    by("wrong").hidden = false;
    return;
  }
  button.disabled = true;
  state("Calling…");
  const answer = await send("tools/call", { name: chosen().name, arguments: given });
  button.disabled = false;
  const got = answer.result?.structuredContent?.progress_handle;
  if (got) handle = got;
  const input = document.getElementById("try-arg-progress_handle");
  if (input && handle && !input.value) input.value = handle;
  state(answer.ok && !answer.result?.isError ? "Done." : "The answer is an error; it says why.");
});
