// The tools of an instance: lists them, and calls one for admins. Everything that the server of the instance returns is
// only ever inserted as text.

import { api } from "./console.js";
import { el, say } from "./dom.js";
import { plainMessage } from "./messages.js";
import { exampleArguments, parseArguments } from "./tool-arguments.js";

const root = document.getElementById("tools");
const by = (id) => document.getElementById(`tools-${id}`);
const path = `/instances/${root.dataset.instance}`;
/** The maximum number of characters of a result that are shown. */
const MAX_SHOWN = 200_000;

let tools = [];
/** The arguments that were filled in, to replace them only if the user has not changed them. */
let filled = "";

root.hidden = false;

/** Returns the message for a failed request. */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) return "Your session has expired. Reload the page to sign in again.";
  return plainMessage(body.detail ?? `The request failed with status ${response.status}.`, body.field);
}

function showProblem(text) {
  by("problem").hidden = text === "";
  say(by("problem"), text);
}

async function load() {
  by("reload").disabled = true;
  say(by("state"), "Loading tools…");
  showProblem("");
  let problem = "";
  try {
    const response = await api("GET", `${path}/tools`);
    if (response.ok) tools = (await response.json()).items;
    else problem = await problemOf(response);
  } catch {
    problem = "The server did not respond. Check your connection, then reload the tools.";
  }
  by("reload").disabled = false;
  say(by("state"), problem ? "" : tools.length === 1 ? "1 tool" : `${tools.length} tools`);
  showProblem(problem);
  if (!problem) show();
}

function show() {
  by("section").hidden = tools.length === 0;
  by("list").replaceChildren(...tools.map(details));
  const form = by("form");
  if (!form) return;
  form.hidden = tools.length === 0;
  const selected = by("tool").value;
  by("tool").replaceChildren(...tools.map((tool) => el("option", { value: tool.name }, tool.title ? `${tool.title} (${tool.name})` : tool.name)));
  if (tools.some((tool) => tool.name === selected)) by("tool").value = selected;
  select();
}

function details(tool) {
  return el("details", { class: "exchange" },
    el("summary", {}, el("code", {}, tool.name), tool.title ? ` ${tool.title}` : ""),
    el("p", { dir: "auto" }, tool.description ?? "The server does not describe this tool."),
    el("h3", {}, "Input schema"),
    el("pre", { tabindex: 0, "aria-label": `Input schema of ${tool.name}` }, el("code", {}, JSON.stringify(tool.inputSchema ?? {}, null, 2))));
}

function select() {
  const tool = tools.find((one) => one.name === by("tool").value);
  if (!tool) return;
  say(by("about"), tool.description ?? "");
  say(by("error"), "");
  if (by("arguments").value !== filled) return;
  filled = JSON.stringify(exampleArguments(tool.inputSchema), null, 2);
  by("arguments").value = filled;
}

function shorten(text) {
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}\n… ${text.length - MAX_SHOWN} more characters` : text;
}

/** Returns the text parts of a result, and what the others are. */
function contentOf(result) {
  const parts = Array.isArray(result.content) ? result.content : [];
  return parts.map((part) => {
    if (part?.type === "text") return String(part.text);
    if (part?.type === "resource_link") return `[link to ${part.uri}]`;
    return `[${part?.type ?? "unknown"} content${part?.mimeType ? `, ${part.mimeType}` : ""}]`;
  }).join("\n\n");
}

function showResult(tool, took, { result, problem }) {
  by("result").hidden = false;
  const isError = Boolean(problem) || result.isError === true;
  const badge = el("span", { class: `badge ${isError ? "bad" : "good"}` }, problem ? "failed" : isError ? "tool error" : "success");
  const parts = [el("p", {}, badge, " ", el("code", {}, tool), el("span", { class: "soft" }, ` ${took} ms`))];
  if (problem) {
    parts.push(el("p", { class: "field-error" }, problem));
  } else {
    const text = contentOf(result);
    if (text) parts.push(el("pre", { class: "wrap", tabindex: 0, "aria-label": "Content" }, el("code", {}, shorten(text))));
    const json = el("details", { open: text === "" }, el("summary", {}, "Complete result (JSON)"),
      el("pre", { tabindex: 0, "aria-label": "Complete result" }, el("code", {}, shorten(JSON.stringify(result, null, 2)))));
    parts.push(json);
  }
  by("output").replaceChildren(...parts);
}

async function call(tool, args) {
  const started = performance.now();
  const took = () => Math.round(performance.now() - started);
  try {
    const response = await api("POST", `${path}/call`, { body: { tool, arguments: args } });
    if (response.ok) showResult(tool, took(), { result: await response.json() });
    else showResult(tool, took(), { problem: await problemOf(response) });
  } catch {
    showResult(tool, took(), { problem: "The server did not respond. The tool may have been called." });
  }
}

by("reload").addEventListener("click", load);
by("tool")?.addEventListener("change", () => {
  say(by("called"), "");
  // Arguments of another tool are of no use.
  filled = by("arguments").value;
  select();
});
by("form")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  // The form is submitted again for the next call (see console.js).
  delete event.target.dataset.sent;
  const { value, problem } = parseArguments(by("arguments").value);
  say(by("error"), problem ?? "");
  if (problem) return by("arguments").focus();
  const button = event.target.querySelector("button[type=submit]");
  button.disabled = true;
  say(by("called"), "Calling the tool…");
  await call(by("tool").value, value);
  say(by("called"), "Done. See the result below.");
  button.disabled = false;
});
load();
