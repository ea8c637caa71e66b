// Shows both versions of a text that two users have changed, so that the user can resolve the conflict.

import { el, say } from "./dom.js";
import { compare } from "./editor-diff.js";
import { isConflict } from "./editor-model.js";

const LABELS = {
  title: "Title", section_title: "Section", content: "Content", introduction_for_agent: "Introduction for the agent",
  context_for_agent: "Context for the agent", operations_for_agent: "Operations for the agent", description: "Description",
  type: "Type", estimated_duration_minutes: "Minutes", tags: "Tags",
};

export class Conflicts {
  constructor(editor, place, subjectOf) {
    Object.assign(this, { editor, place, subjectOf });
    this.parts = new Map();
    this.subject = null;
  }

  show() {
    const subject = this.subjectOf();
    if (subject !== this.subject) {
      this.parts.clear();
      this.place.replaceChildren();
      this.subject = subject;
    }
    if (!subject) return;
    this.showDeleted(subject);
    const names = Object.keys(subject.fields).filter((name) => isConflict(subject.fields[name]));
    for (const [name, part] of this.parts) {
      if (name === "gone" || names.includes(name)) continue;
      part.element.remove();
      this.parts.delete(name);
    }
    for (const name of names) {
      const part = this.parts.get(name) ?? this.make(subject, name);
      this.fill(part, subject.fields[name]);
    }
  }

  showDeleted(subject) {
    const part = this.parts.get("gone");
    if (!subject.gone) {
      part?.element.remove();
      this.parts.delete("gone");
    } else if (!part) {
      const element = el("section", { class: "conflict", "aria-label": "Deleted by another user" },
        el("h3", {}, "Another user deleted this step"),
        el("p", {}, "Your changes are not saved. They are kept in this browser until you decide."),
        el("div", { class: "actions" },
          el("button", { type: "button", class: "primary", onclick: () => this.editor.restoreOwn(subject.id) }, "Restore the step with my text"),
          el("button", { type: "button", class: "danger", onclick: () => this.editor.discardDeleted(subject.id) }, "Discard my text")));
      this.place.prepend(element);
      this.parts.set("gone", { element });
      this.editor.announce("Another user deleted this step. Your changes are not saved.");
    }
  }

  make(subject, name) {
    const id = `conflict-${name}`;
    const side = (title) => {
      const text = el("div", { class: "version", tabindex: "0", role: "group", "aria-label": title });
      return { text, element: el("div", {}, el("h4", {}, title), text) };
    };
    const mine = side("Your version");
    const theirs = side("The other version");
    const merged = el("textarea", { id: `${id}-merged`, rows: "8", class: "mono" });
    const merging = el("div", { class: "field", hidden: true }, el("label", { for: `${id}-merged` }, "Merged text"), merged,
      el("div", { class: "actions" }, el("button", { type: "button", class: "primary", onclick: () => decide(merged.value) }, "Save merged text")));
    const decide = (text) => {
      this.editor.session.resolve(subject, name, text);
      this.editor.announce(`${LABELS[name]}: conflict resolved.`);
      this.editor.focusField(subject, name);
    };
    const it = subject.fields[name];
    const element = el("section", { class: "conflict", "aria-labelledby": id },
      el("h3", { id }, `${LABELS[name]}: two versions`),
      el("p", {}, "You and another user have changed this text at the same time. Your version is not saved yet. You can continue editing and decide later."),
      el("div", { class: "versions" }, mine.element, theirs.element),
      el("p", { class: "hint legend-line" }, el("del", {}, "Only in your version"), " ", el("ins", {}, "only in the other version")),
      el("div", { class: "actions" },
        el("button", { type: "button", class: "primary", onclick: () => decide(it.text) }, "Keep my version"),
        el("button", { type: "button", onclick: () => decide(it.theirs) }, "Use the other version"),
        el("button", { type: "button", onclick: () => {
          merged.value = it.text;
          merging.hidden = false;
          merged.focus();
        } }, "Merge both")),
      merging);
    const part = { element, mine: mine.text, theirs: theirs.text };
    this.place.append(element);
    this.parts.set(name, part);
    this.editor.announce(`${LABELS[name]}: another user has changed the same text. Both versions are shown above the fields.`);
    return part;
  }

  fill(part, it) {
    const shown = JSON.stringify([it.text, it.theirs]);
    if (part.shown === shown) return;
    part.shown = shown;
    const parts = compare(it.text, it.theirs);
    const side = (kind, element) => parts.filter((own) => own.kind === "same" || own.kind === kind)
      .map((own) => (own.kind === "same" ? el("span", {}, own.text) : el(element, {}, own.text)));
    part.mine.replaceChildren(...side("del", "del"));
    part.theirs.replaceChildren(...side("ins", "ins"));
    for (const [box, text] of [[part.mine, it.text], [part.theirs, it.theirs]]) if (text === "") say(box, "(empty)");
  }
}
