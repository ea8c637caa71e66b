// The title, the details dialog and the save status.

import { say } from "./dom.js";
import { HEAD_FIELDS, isDirty } from "./editor-model.js";

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** Returns the text of the save status. */
function statusText(session) {
  switch (session.state) {
    case "loading": return "Loading…";
    case "lost": return session.isUnsaved ? "Not saved: offline, retrying" : "Offline, retrying";
    case "signed-out": return "Not saved: your session has expired";
    case "conflict": return "Not saved: another user changed the same text";
    case "refused": return "Not saved: see the marked field";
    case "deleted": return "This walkthrough was deleted";
    default: return session.savedAt ? `Saved ${time.format(session.savedAt)}` : "All changes saved";
  }
}

export class Head {
  constructor(editor, root) {
    this.editor = editor;
    this.root = root;
    this.title = root.querySelector("#walkthrough-title");
    this.dialog = root.querySelector("#details");
    this.form = root.querySelector("[data-details-form]");
    this.title.addEventListener("input", () => this.session.model && this.session.edit(this.session.model.head, "title", this.title.value));
    this.title.addEventListener("blur", () => this.session.model && this.session.leave(this.session.model.head, "title"));
    this.title.addEventListener("keydown", (event) => event.key === "Enter" && this.title.blur());
    root.querySelector("[data-details]").addEventListener("click", () => this.open());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  get session() {
    return this.editor.session;
  }

  isIn(subject, name) {
    return subject === this.session.model?.head && name === "title" && document.hasFocus() && document.activeElement === this.title;
  }

  status() {
    const busy = this.session.state === "saving";
    this.root.querySelector("[data-busy]").hidden = !busy;
    const status = this.root.querySelector("[data-save-status]");
    status.hidden = busy;
    if (!busy) say(status, statusText(this.session));
    const bad = !["saved", "saving", "loading"].includes(this.session.state);
    this.root.querySelector("[data-save]").classList.toggle("bad", bad);
  }

  show() {
    const { head, info } = this.session.model;
    const it = head.fields.title;
    if (this.title.value !== it.text) this.title.value = it.text;
    const error = it.refused && isDirty(it) && it.refused.text === it.text ? it.refused.message : "";
    say(this.root.querySelector("#walkthrough-title-error"), error);
    if (error) this.title.setAttribute("aria-invalid", "true");
    else this.title.removeAttribute("aria-invalid");
    say(this.root.querySelector("[data-name]"), it.text || "Untitled");
    document.title = `${it.text || "Untitled"} · Waypost`;
    const badge = this.root.querySelector("[data-state]");
    const [tone, text] = {
      draft: ["", "Draft"], archived: ["warn", "Archived"],
      published: info.has_unpublished_changes ? ["info", "Published, with unpublished changes"] : ["good", "Published"],
    }[info.state] ?? ["", info.state];
    badge.className = `badge ${tone}`;
    say(badge, text);
    const kind = head.fields.type.text;
    const minutes = head.fields.estimated_duration_minutes.text;
    say(this.root.querySelector("[data-kind]"), kind.charAt(0).toUpperCase() + kind.slice(1) + (minutes ? ` · ${minutes} min` : ""));
  }

  // Details

  open() {
    if (!this.session.model) return;
    const { fields } = this.session.model.head;
    this.opened = Object.fromEntries(HEAD_FIELDS.map((name) => [name, fields[name].base]));
    for (const name of HEAD_FIELDS) if (this.form.elements[name]) this.form.elements[name].value = fields[name].text;
    this.showProblem("");
    this.dialog.showModal();
  }

  showProblem(text) {
    const problem = this.root.querySelector("[data-details-problem]");
    problem.hidden = text === "";
    say(problem, text);
  }

  async save() {
    const { head } = this.session.model;
    const minutes = this.form.elements.estimated_duration_minutes;
    if (!minutes.checkValidity() || !/^\d*$/.test(minutes.value)) {
      minutes.focus();
      return this.showProblem("Enter a whole number of minutes, or leave the field empty.");
    }
    for (const name of HEAD_FIELDS) {
      const input = this.form.elements[name];
      const it = head.fields[name];
      if (!input || input.value === it.text) continue;
      // A change made by another user while the dialog was open is kept, unless the field was changed here too.
      const seen = this.opened[name];
      if (it.base !== seen && input.value === seen) continue;
      if (it.base !== seen && it.theirs === null) Object.assign(it, { theirs: it.base, base: seen, settled: seen });
      this.session.edit(head, name, input.value);
    }
    await this.session.flush();
    const refused = HEAD_FIELDS.map((name) => head.fields[name]).find((it) => it.refused && isDirty(it) && it.refused.text === it.text);
    if (refused && refused !== head.fields.title) return this.showProblem(refused.refused.message);
    this.dialog.close();
  }
}
