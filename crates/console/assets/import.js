// The import: the author drops or selects files, reviews the result of a dry run and confirms.
// Content of files and of the server is only ever inserted as text, never as HTML.

import { plainMessage } from "./messages.js";

const root = document.getElementById("import");
const drop = root.querySelector("[data-drop]");
const options = root.querySelector("[data-options]");
const status = root.querySelector("[data-status]");
const report = root.querySelector("[data-report]");
const MAX_BYTES = 1024 * 1024;
const SOURCE = /^index\.json$|\.(md|markdown|tour)$/i;
const IGNORED_FOLDERS = [".git", ".hg", ".svn", "node_modules"];
/** The maximum number of entries read from a dropped folder. */
const MAX_ENTRIES = 20_000;
let selected = [];
let turn = 0;

function element(name, { text, ...attributes } = {}, ...children) {
  const created = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  if (text !== undefined) created.textContent = text;
  created.append(...children);
  return created;
}

function problem(text) {
  report.replaceChildren(element("div", { class: "problem", role: "alert", text }));
}

/** Whether a file of a folder can be part of a walkthrough. The server applies the same rule. */
function isSource(path) {
  const parts = path.split("/");
  const name = parts.pop();
  return !name.startsWith(".") && !parts.some((part) => IGNORED_FOLDERS.includes(part)) && SOURCE.test(name);
}

/** Selects files: pairs of path and file. */
function select(files) {
  selected = files.filter(({ path }) => !path.includes("/") || isSource(path));
  if (selected.length === 0) {
    problem("No files to import. Select a JSON, Markdown or CodeTour file, or a folder with such files.");
    return;
  }
  if (selected.length > 500) {
    problem(`The folder contains ${selected.length} files to import; at most 500 are allowed.`);
    return;
  }
  if (selected.reduce((sum, { file }) => sum + file.size, 0) > MAX_BYTES) {
    problem("The files are larger than 1 MiB in total. Remove files that are not text, such as images.");
    return;
  }
  options.hidden = false;
  const [first] = selected;
  options.querySelector("[data-selection]").textContent = selected.length === 1 ? first.path : `${selected.length} files from ${first.path.split("/")[0]}`;
  run(true);
}

/** Uploads the files. A dry run changes nothing. */
async function run(dry) {
  const ownTurn = ++turn;
  const query = new URLSearchParams({ dry_run: String(dry) });
  const title = document.getElementById("f-title").value.trim();
  const server = document.getElementById("f-server")?.value;
  if (title) query.set("title", title);
  if (server) query.set("server_id", server);
  if (document.getElementById("f-publish").checked) query.set("publish", "true");
  if (document.getElementById("f-replace").checked) query.set("replace", "true");
  const form = new FormData();
  for (const { path, file } of selected) form.append("file", file, path);
  status.textContent = dry ? "Checking files…" : "Importing…";
  const headers = { Accept: "application/json", "Waypost-Organization": document.body.dataset.org };
  let response, body;
  try {
    response = await fetch(`/api/v1/walkthroughs/import?${query}`, { method: "POST", headers, body: form });
    body = await response.json();
  } catch {
    if (ownTurn !== turn) return;
    status.textContent = "";
    problem("The server did not respond. Nothing was imported. Check your connection, then try again.");
    return;
  }
  if (ownTurn !== turn) return;
  status.textContent = "";
  if (!response.ok) showRejection(body);
  else if (dry) showPreview(body);
  else location.assign(`${root.dataset.walkthroughs}/${encodeURIComponent(body.id)}`);
}

function showRejection(body) {
  const where = [["File", body.file], ["Step", body.step], ["Field", body.field]].filter(([, value]) => value);
  const list = element("dl", { class: "facts" });
  for (const [name, value] of where) list.append(element("dt", { text: name }), element("dd", { text: value }));
  const box = element("div", { class: "problem", role: "alert" }, element("p", { text: plainMessage(body.detail ?? "The import was rejected.", body.field) }));
  if (where.length > 0) box.append(list);
  report.replaceChildren(box);
}

const CHANGES = {
  added: ["badge good", "Added"],
  updated: ["badge warn", "Changed"],
  moved: ["badge info", "Moved"],
  unchanged: ["badge", "Unchanged"],
  removed: ["badge bad", "Removed"],
};

function showPreview(body) {
  const isUnchanged = !body.created && !body.changed;
  const effect = body.created ? "creates a new walkthrough" : isUnchanged ? "changes nothing in" : "updates";
  const card = element("section", { class: "card", "aria-labelledby": "report-title" });
  card.append(element("h2", { id: "report-title", text: "Preview" }));
  card.append(element("p", {}, `The import ${effect}${body.created ? ": " : " "}`, element("strong", { text: body.title }), ". ", body.summary));
  for (const warning of body.warnings) card.append(element("p", { class: "note warn", text: warning }));
  if (body.published_version) {
    card.append(element("p", { text: body.published_new ? `It will be published as version ${body.published_version}.` : `It is already published as version ${body.published_version}.` }));
  }
  const list = element("ol", { class: "list" });
  for (const step of body.steps) {
    const [style, label] = CHANGES[step.change] ?? ["badge", step.change];
    const fields = step.fields.length > 0 ? ` (${step.fields.map((field) => field.replaceAll("_", " ")).join(", ")})` : "";
    list.append(element("li", {}, element("span", { class: style, text: label }), ` ${step.title}`, element("small", { class: "soft", text: fields })));
  }
  card.append(list);
  const confirm = element("button", { type: "button", class: "primary", text: body.created ? "Import" : "Import changes" });
  confirm.addEventListener("click", () => { confirm.disabled = true; run(false); });
  if (isUnchanged && !body.published_new && !body.assigned) {
    const link = element("a", { class: "button", href: `${root.dataset.walkthroughs}/${encodeURIComponent(body.id)}`, text: "Open walkthrough" });
    card.append(element("div", { class: "actions" }, link));
  } else card.append(element("div", { class: "actions" }, confirm));
  report.replaceChildren(card);
}

/** Returns the files of a dropped entry: the file itself, or all files of a folder that can be imported. */
async function filesOf(entry, seen = { entries: 0 }, prefix = "", depth = 0) {
  seen.entries += 1;
  const path = prefix + entry.name;
  if (entry.isFile) {
    if (depth > 0 && !isSource(path)) return [];
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path, file }];
  }
  if (depth > 7 || IGNORED_FOLDERS.includes(entry.name)) return [];
  const reader = entry.createReader();
  const found = [];
  while (seen.entries < MAX_ENTRIES) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    for (const child of batch) found.push(...(await filesOf(child, seen, `${path}/`, depth + 1)));
  }
  return found;
}

for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (entries.length === 0) {
    select([...event.dataTransfer.files].map((file) => ({ path: file.name, file })));
    return;
  }
  try {
    select((await Promise.all(entries.map((entry) => filesOf(entry)))).flat());
  } catch {
    problem("The browser could not read the dropped files. Use the buttons to select them instead.");
  }
});
for (const id of ["f-file", "f-folder"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    input.value = "";
    if (files.length > 0) select(files);
  });
}
options.addEventListener("change", () => { if (selected.length > 0) run(true); });
