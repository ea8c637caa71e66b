// The revision history of the selected step, with buttons to restore a revision.

import { el } from "./dom.js";
import { compare } from "./editor-diff.js";

const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const ACTIONS = {
  baseline: "Initial revision", add: "Added", edit: "Edited", import: "Imported", restore: "Restored", delete: "Deleted",
};
const FIELDS = [
  ["title", "Title"], ["section_title", "Section"], ["content", "Content"], ["introduction_for_agent", "Introduction for the agent"],
  ["context_for_agent", "Context for the agent"], ["operations_for_agent", "Operations for the agent"],
];

/** Shortens unchanged text to the lines around the changes. */
function shorten(text) {
  const lines = text.split("\n");
  return lines.length > 6 ? [...lines.slice(0, 3), "…", ...lines.slice(-3)].join("\n") : text;
}

/** Returns the differences between two revisions as elements. `before` is null for the first revision. */
export function differences(before, after) {
  return FIELDS.flatMap(([name, label]) => {
    const [from, to] = [before?.[name] ?? "", after[name] ?? ""];
    if (from === to) return [];
    const parts = compare(from, to).map(({ kind, text }) => (kind === "same" ? shorten(text) : el(kind, {}, text)));
    return [el("h4", {}, label), el("p", { class: "history-diff" }, ...parts)];
  });
}

export class History {
  constructor(editor, root) {
    this.editor = editor;
    this.place = root.querySelector("[data-history]");
    this.list = el("ol", { class: "list history" });
    this.more = el("button", { type: "button", class: "small", hidden: true, onclick: () => this.load() }, "Show earlier changes");
    this.said = el("p", { class: "soft", role: "status" });
    this.place.append(this.said, this.list, this.more);
    this.place.addEventListener("toggle", () => this.place.open && this.begin());
  }

  get session() {
    return this.editor.session;
  }

  /** Called when another step is selected or its content changes. */
  show() {
    const id = this.editor.chosen;
    this.place.hidden = !id || !this.session.step(id);
    const stamp = `${id} ${this.session.model?.revision}`;
    if (stamp === this.stamp) return;
    const other = !this.stamp?.startsWith(`${id} `);
    this.stamp = stamp;
    if (other) this.place.open = false;
    else if (this.place.open && !this.place.contains(document.activeElement)) this.begin();
  }

  begin() {
    this.cursor = null;
    this.request = {};
    this.list.replaceChildren();
    return this.load();
  }

  path(rest = "") {
    return `${this.session.path}/steps/${this.id}/revisions${rest}`;
  }

  async load() {
    this.id = this.editor.chosen;
    const request = this.request;
    try {
      const query = this.cursor ? `?cursor=${this.cursor}` : "";
      const { body } = await this.session.request("GET", this.path(query));
      if (request !== this.request) return;
      this.list.append(...body.items.map((it) => this.row(it)));
      this.cursor = body.next_cursor;
      this.more.hidden = !this.cursor;
      this.said.textContent = "Changes are kept for 90 days. Edits by one user within 10 minutes are combined.";
    } catch (error) {
      this.said.textContent = error.message;
    }
  }

  row(it) {
    const action = it.restored_from ? `Restored from ${it.restored_from}` : ACTIONS[it.act];
    const who = it.actor_name ?? it.actor;
    const changes = el("div", {});
    const details = el("details", {}, el("summary", {}, "Show changes"), changes);
    details.addEventListener("toggle", () => details.open && this.explain(it.number, changes), { once: true });
    const at = new Date(it.updated_at);
    return el("li", { dataset: { revision: it.number } },
      el("div", { class: "history-line" },
        el("span", {}, el("strong", {}, action), who ? ` by ${who}, ` : ", ", el("time", { datetime: it.updated_at, title: it.updated_at }, time.format(at))),
        it.is_current
          ? el("span", { class: "badge" }, "Current")
          : el("button", { type: "button", class: "small", "aria-label": `Restore revision ${it.number}`, onclick: () => this.restore(it.number) }, "Restore")),
      details);
  }

  async explain(number, place) {
    try {
      const [after, before] = await Promise.all([
        this.session.request("GET", this.path(`/${number}`)),
        // If the previous revision has been deleted, all content is shown as new.
        number > 1 ? this.session.call("GET", this.path(`/${number - 1}`)) : null,
      ]);
      const parts = differences(before?.status === 200 ? before.body : null, after.body);
      place.replaceChildren(...(parts.length > 0 ? parts : [el("p", { class: "soft" }, "No changes.")]));
    } catch (error) {
      place.replaceChildren(el("p", { class: "field-error" }, error.message));
    }
  }

  async restore(number) {
    const { id } = this;
    await this.session.flush();
    if (!(await this.session.restoreRevision(id, number))) return;
    this.editor.announce(`Revision ${number} restored.`);
    await this.begin();
  }
}
