// The "Try it" panel: an MCP client in the page that uses Streamable HTTP with the server's endpoint on this host.
// It implements protocol version 2025-11-25, including initialisation and sessions. It sends no cookies.

const panel = document.getElementById("try");
const path = panel.dataset.path;
const by = (id) => document.getElementById(`try-${id}`);
const VERSION = "2025-11-25";
const SHOWN = ["content-type", "mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after", "x-request-id"];
const STATUS_HINTS = {
  401: "The server requires sign-in (RFC 9728). A real client would now open the browser. This panel cannot sign in.",
  403: "The server rejects this caller or this page's origin.",
  404: "The session is unknown, the server does not exist, or this page was open for more than 12 hours. Reload the page.",
  429: "Too many calls. Wait for the time in Retry-After.",
};

let next = 1;
let session = null;
let version = null;
let handle = null;
let tools = [];

panel.hidden = false;

/** Parses a response body: JSON, or an event stream that contains the response. */
function parseBody(kind, text, id) {
  if (!kind.startsWith("text/event-stream")) return text ? JSON.parse(text) : null;
  const messages = text.split(/\r?\n\r?\n/).flatMap((event) => {
    const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
    const joined = data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    return joined ? [JSON.parse(joined)] : [];
  });
  return messages.find((message) => message.id === id) ?? messages.at(-1) ?? null;
}

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function block(title, lines, body) {
  const text = body === null || body === undefined ? lines : `${lines}\n\n${JSON.stringify(body, null, 2)}`;
  return [element("h3", { textContent: title }), element("pre", { tabIndex: 0 }, element("code", { textContent: text }))];
}

/** Shows an exchange above the earlier ones. */
function show({ request, sent, status, headers, body, took, failure }) {
  by("empty").hidden = true;
  const problem = body?.error ?? (body?.result?.isError ? body.result.structuredContent?.error : undefined);
  const isOk = !failure && status < 400 && !problem;
  const badge = element("span", { className: `badge ${isOk ? "good" : "bad"}`, textContent: failure ? "no response" : String(status) });
  const name = request.params?.name ? `${request.method} · ${request.params.name}` : request.method;
  const head = element("summary", {}, badge, ` ${name} `, element("span", { className: "soft", textContent: `${took} ms` }));
  const parts = [head];
  const message = failure ?? STATUS_HINTS[status] ?? problem?.message;
  if (message) parts.push(element("p", { className: isOk ? "" : "field-error", textContent: message }));
  const text = body?.result?.content?.find?.((part) => part.type === "text")?.text;
  if (text) parts.push(element("h3", { textContent: "Text for the agent" }), element("pre", { tabIndex: 0, className: "wrap" }, element("code", { textContent: text })));
  parts.push(...block("Request", [`POST ${path}`, ...sent.map(([key, value]) => `${key}: ${value}`)].join("\n"), request));
  if (!failure) parts.push(...block("Response", [`HTTP ${status}`, ...headers.map(([key, value]) => `${key}: ${value}`)].join("\n"), body));
  for (const open of by("log").querySelectorAll("details[open]")) open.open = false;
  by("log").prepend(element("details", { open: true, className: "exchange" }, ...parts));
}

/** Sends a message. Returns `{ok, status, result}`. */
async function send(method, params, { notification = false } = {}) {
  const request = { jsonrpc: "2.0", ...(notification ? {} : { id: next++ }), method, ...(params ? { params } : {}) };
  const sent = [["Content-Type", "application/json"], ["Accept", "application/json, text/event-stream"]];
  if (session) sent.push(["Mcp-Session-Id", session]);
  if (version) sent.push(["MCP-Protocol-Version", version]);
  const started = performance.now();
  const elapsed = () => Math.round(performance.now() - started);
  try {
    const response = await fetch(path, { method: "POST", headers: sent, credentials: "omit", body: JSON.stringify(request) });
    const text = await response.text();
    const headers = SHOWN.filter((name) => response.headers.has(name)).map((name) => [name, response.headers.get(name)]);
    session = response.headers.get("mcp-session-id") ?? session;
    let body = null;
    let failure;
    try {
      body = parseBody(response.headers.get("content-type") ?? "", text, request.id);
    } catch {
      failure = `The response is not JSON: ${text.slice(0, 300)}`;
    }
    if (!notification || response.status >= 400) show({ request, sent, status: response.status, headers, body, took: elapsed(), failure });
    return { ok: response.ok && !body?.error, status: response.status, result: body?.result };
  } catch (error) {
    show({ request, sent, took: elapsed(), failure: `The server did not respond: ${error.message}` });
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
  const started = await send("initialize", { protocolVersion: VERSION, capabilities: {}, clientInfo });
  if (started.ok) {
    version = started.result.protocolVersion;
    await send("notifications/initialized", undefined, { notification: true });
    const list = await send("tools/list");
    if (list.ok) showTools(list.result.tools);
  } else {
    state(started.status === 401 ? "The server requires sign-in to connect." : "Connection failed. See the response for the reason.");
  }
  by("connect").disabled = false;
  by("connect").textContent = "Reconnect";
}

function showTools(list) {
  tools = list;
  by("form").hidden = tools.length === 0;
  state(tools.length ? `Connected: ${tools.length} ${tools.length === 1 ? "tool" : "tools"}.` : "Connected. The server currently lists no tools; see its overview for the reason.");
  by("tool").replaceChildren(...tools.map((tool) => element("option", { value: tool.name, textContent: tool.title ? `${tool.title} (${tool.name})` : tool.name })));
  selectTool();
}

const selectedTool = () => tools.find((tool) => tool.name === by("tool").value);

/** Returns the first type of a schema that is not null. */
function kind(schema) {
  const named = schema.type ?? schema.anyOf?.map((one) => one.type);
  return [named].flat().find((type) => type && type !== "null") ?? "string";
}

function field([name, schema], required) {
  const id = `try-arg-${name}`;
  const type = kind(schema);
  const options = schema.enum ?? schema.anyOf?.find((one) => one.enum)?.enum ?? (type === "boolean" ? [true, false] : null);
  const input = options
    ? element("select", {}, element("option", { value: "", textContent: "Not set" }), ...options.filter((value) => value !== null).map((value) => element("option", { value: JSON.stringify(value), textContent: String(value) })))
    : element("input", { type: type === "integer" || type === "number" ? "number" : "text", autocomplete: "off", spellcheck: false });
  input.id = id;
  input.dataset.name = name;
  input.dataset.kind = options ? "json" : type;
  input.required = required;
  if (name === "progress_handle" && handle) input.value = handle;
  const parts = [element("label", { htmlFor: id, textContent: required ? `${name} (required)` : name }), input];
  if (schema.description) {
    input.setAttribute("aria-describedby", `${id}-about`);
    parts.push(element("p", { className: "hint", id: `${id}-about`, textContent: schema.description }));
  }
  return element("div", { className: "field" }, ...parts);
}

function selectTool() {
  const tool = selectedTool();
  if (!tool) return;
  by("about").textContent = tool.description ?? "";
  const required = tool.inputSchema?.required ?? [];
  const properties = Object.entries(tool.inputSchema?.properties ?? {});
  by("fields").replaceChildren(...properties.map((entry) => field(entry, required.includes(entry[0]))));
  by("json").value = JSON.stringify(readArguments(), null, 2);
}

/** Returns the arguments entered in the fields, without empty ones. */
function readArguments() {
  const args = [...by("fields").querySelectorAll("[data-name]")].filter((input) => input.value !== "");
  return Object.fromEntries(args.map((input) => {
    if (input.dataset.kind === "json") return [input.dataset.name, JSON.parse(input.value)];
    if (input.type === "number") return [input.dataset.name, Number(input.value)];
    if (["array", "object"].includes(input.dataset.kind)) return [input.dataset.name, JSON.parse(input.value)];
    return [input.dataset.name, input.value];
  }));
}

by("connect").addEventListener("click", connect);
by("tool").addEventListener("change", selectTool);
by("raw").addEventListener("change", () => {
  const raw = by("raw").checked;
  if (raw) by("json").value = JSON.stringify(readArguments(), null, 2);
  by("json-field").hidden = !raw;
  by("fields").hidden = raw;
  // A hidden field must not prevent the form from being submitted.
  for (const input of by("fields").querySelectorAll("[data-name]")) input.disabled = raw;
});
by("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  delete event.target.dataset.sent;
  const button = event.target.querySelector("button[type=submit]");
  by("error").hidden = true;
  let args;
  try {
    args = by("raw").checked ? JSON.parse(by("json").value || "{}") : readArguments();
  } catch (error) {
    by("error").textContent = `The arguments are not JSON: ${error.message}`;
    by("error").hidden = false;
    return;
  }
  button.disabled = true;
  state("Calling…");
  const response = await send("tools/call", { name: selectedTool().name, arguments: args });
  button.disabled = false;
  const newHandle = response.result?.structuredContent?.progress_handle;
  if (newHandle) handle = newHandle;
  const input = document.getElementById("try-arg-progress_handle");
  if (input && handle && !input.value) input.value = handle;
  state(response.ok && !response.result?.isError ? "Done." : "The call failed. See the response for details.");
});
