// The import: files are dropped or chosen, a dry run says what would happen, and the author confirms.
// Everything that comes from a file or from the server is put into the page as text, never as HTML.

const root = document.getElementById("import");
const drop = root.querySelector("[data-drop]");
const options = root.querySelector("[data-options]");
const said = root.querySelector("[data-said]");
const report = root.querySelector("[data-report]");
const LIMIT = 8 * 1024 * 1024;
const SOURCE = /^index\.json$|\.(md|markdown|tour)$/i;
const FOREIGN = [".git", ".hg", ".svn", "node_modules"];
/** Entries of a dropped folder that are looked at, at most. */
const ENTRIES = 20_000;
let chosen = [];
let turn = 0;

function element(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function problem(text) {
  report.replaceChildren(element("div", { class: "problem", role: "alert", text }));
}

/** Whether a file of a folder can be part of a walkthrough: the same rule as on the server. */
function isSource(path) {
  const parts = path.split("/");
  const name = parts.pop();
  return !name.startsWith(".") && !parts.some((part) => FOREIGN.includes(part)) && SOURCE.test(name);
}

/** Chooses files: pairs of path and file. */
function choose(files) {
  chosen = files.filter(({ path }) => !path.includes("/") || isSource(path));
  if (chosen.length === 0) {
    problem("There is no file to import in it. Choose a JSON, Markdown or CodeTour file, or a folder with such files.");
    return;
  }
  if (chosen.length > 500) {
    problem(`The folder has ${chosen.length} files to import, 500 at most. Is it the right one?`);
    return;
  }
  if (chosen.reduce((sum, { file }) => sum + file.size, 0) > LIMIT) {
    problem("The files are larger than 8 MiB together. Leave out what is no text, such as pictures.");
    return;
  }
  options.hidden = false;
  const [first] = chosen;
  options.querySelector("[data-chosen]").textContent = chosen.length === 1 ? first.path : `${chosen.length} files of ${first.path.split("/")[0]}`;
  run(true);
}

/** Sends the files; a dry run changes nothing. */
async function run(dry) {
  const mine = ++turn;
  const query = new URLSearchParams({ dry_run: String(dry) });
  const title = document.getElementById("f-title").value.trim();
  const server = document.getElementById("f-server")?.value;
  if (title) query.set("title", title);
  if (server) query.set("server_id", server);
  if (document.getElementById("f-publish").checked) query.set("publish", "true");
  if (document.getElementById("f-replace").checked) query.set("replace", "true");
  const form = new FormData();
  for (const { path, file } of chosen) form.append("file", file, path);
  said.textContent = dry ? "Looking at the files…" : "Importing…";
  const headers = { Accept: "application/json", "Waypost-Organization": document.body.dataset.org };
  let response, body;
  try {
    response = await fetch(`/api/v1/walkthroughs/import?${query}`, { method: "POST", headers, body: form });
    body = await response.json();
  } catch {
    if (mine !== turn) return;
    said.textContent = "";
    problem("The server did not answer. Nothing was imported. Check your connection, then try again.");
    return;
  }
  if (mine !== turn) return;
  said.textContent = "";
  if (!response.ok) refused(body);
  else if (dry) show(body);
  else location.assign(`${root.dataset.walkthroughs}/${encodeURIComponent(body.id)}`);
}

function refused(body) {
  const where = [["File", body.file], ["Step", body.step], ["Field", body.field]].filter(([, value]) => value);
  const list = element("dl", { class: "facts" });
  for (const [name, value] of where) list.append(element("dt", { text: name }), element("dd", { text: value }));
  const box = element("div", { class: "problem", role: "alert" }, element("p", { text: body.detail ?? "It was refused." }));
  if (where.length > 0) box.append(list);
  report.replaceChildren(box);
}

const CHANGES = {
  added: ["badge good", "Added"],
  updated: ["badge warn", "Changed"],
  moved: ["badge info", "Moved"],
  unchanged: ["badge", "Kept"],
  removed: ["badge bad", "Removed"],
};

function show(body) {
  const nothing = !body.created && !body.changed;
  const did = body.created ? "makes a new walkthrough" : nothing ? "changes nothing in" : "updates";
  const card = element("section", { class: "card", "aria-labelledby": "report-title" });
  card.append(element("h2", { id: "report-title", text: "What will happen" }));
  card.append(element("p", {}, `The import ${did}${body.created ? ": " : " "}`, element("strong", { text: body.title }), ". ", body.summary));
  for (const warning of body.warnings) card.append(element("p", { class: "note warn", text: warning }));
  if (body.published_version) {
    card.append(element("p", { text: body.published_new ? `It is published as version ${body.published_version}.` : `It is published already, as version ${body.published_version}.` }));
  }
  const list = element("ol", { class: "list import-steps" });
  for (const step of body.steps) {
    const [style, word] = CHANGES[step.change] ?? ["badge", step.change];
    const fields = step.fields.length > 0 ? ` (${step.fields.map((field) => field.replaceAll("_", " ")).join(", ")})` : "";
    list.append(element("li", {}, element("span", { class: style, text: word }), ` ${step.title}`, element("small", { class: "soft", text: fields })));
  }
  card.append(list);
  const confirm = element("button", { type: "button", class: "primary", text: body.created ? "Import it" : "Import the changes" });
  confirm.addEventListener("click", () => { confirm.disabled = true; run(false); });
  if (nothing && !body.published_new && !body.assigned) {
    const link = element("a", { class: "button", href: `${root.dataset.walkthroughs}/${encodeURIComponent(body.id)}`, text: "Open it" });
    card.append(element("div", { class: "actions" }, link));
  } else card.append(element("div", { class: "actions" }, confirm));
  report.replaceChildren(card);
}

/** The files of an entry that was dropped: itself, or everything below it that can be imported. */
async function below(entry, seen = { entries: 0 }, prefix = "", depth = 0) {
  seen.entries += 1;
  const path = prefix + entry.name;
  if (entry.isFile) {
    if (depth > 0 && !isSource(path)) return [];
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path, file }];
  }
  if (depth > 7 || FOREIGN.includes(entry.name)) return [];
  const reader = entry.createReader();
  const found = [];
  while (seen.entries < ENTRIES) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) break;
    for (const child of some) found.push(...(await below(child, seen, `${path}/`, depth + 1)));
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
    choose([...event.dataTransfer.files].map((file) => ({ path: file.name, file })));
    return;
  }
  try {
    choose((await Promise.all(entries.map((entry) => below(entry)))).flat());
  } catch {
    problem("The browser could not read what was dropped. Choose it with the button instead.");
  }
});
for (const id of ["f-file", "f-folder"]) {
  const input = document.getElementById(id);
  input.addEventListener("change", () => {
    const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    input.value = "";
    if (files.length > 0) choose(files);
  });
}
options.addEventListener("change", () => { if (chosen.length > 0) run(true); });
