// The form fields of the selected step.

import { el, say } from "./dom.js";
import { isConflict, isDirty } from "./editor-model.js";
import { apply, bytes, characters } from "./editor-text.js";

const MAX_LINE = 200;
const MAX_TEXT = 64 * 1024;

const AGENT = "Plain text. Agents are asked not to show this.";
const FIELDS = [
  { name: "title", label: "Title", line: true, hint: "What the user achieves in this step." },
  { name: "section_title", label: "Section", line: true, hint: "Consecutive steps with the same section are grouped under one heading. Optional." },
  { name: "content", label: "Content", markdown: true, hint: "What the user reads. Markdown." },
  { name: "introduction_for_agent", label: "Introduction for the agent", hint: `How the agent introduces the step before it shows the content. ${AGENT}` },
  { name: "context_for_agent", label: "Context for the agent", hint: `What the agent needs to know to answer questions and diagnose problems. ${AGENT}` },
  { name: "operations_for_agent", label: "Operations for the agent", hint: `What the agent does in this step, and how it verifies the result. ${AGENT}` },
];

const BUTTONS = [
  ["bold", "Bold", "B", "Ctrl+B"], ["italic", "Italic", "I", "Ctrl+I"], ["code", "Code", "<>", null],
  ["block", "Code block", "{ }", null], ["link", "Link", "Link", "Ctrl+K"], ["list", "List", "List", null],
  ["numbers", "Numbered list", "Numbered", null],
];
const KEYS = { b: "bold", i: "italic", k: "link" };

const SYNTAX = [
  ["## Heading", "heading"], ["**bold** and _italic_", "emphasis"], ["`make install`", "inline code"],
  ["```\nmake install\n```", "code block"], ["- one\n- two", "list"], ["1. first\n2. second", "numbered list"],
  ["[text](https://…)", "link"], ["> quote", "quotation"], ["| a | b |\n| - | - |\n| 1 | 2 |", "table"],
];

/** The walkthrough types that require a field for publishing. */
const REQUIRED = {
  title: ["course", "quickstart", "installer", "troubleshooting", "integration"],
  content: ["course", "quickstart", "installer", "troubleshooting", "integration"],
  context_for_agent: ["troubleshooting", "integration"],
  operations_for_agent: ["installer", "integration"],
};

export class Fields {
  constructor(editor, root) {
    this.editor = editor;
    this.form = root.querySelector("[data-form]");
    this.title = root.querySelector("[data-edit-title]");
    this.boxes = new Map(FIELDS.map((spec) => [spec.name, this.make(spec)]));
    this.sections = el("datalist", { id: "sections" });
    this.form.append(...[...this.boxes.values()].map((box) => box.element), this.sections);
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.subject = null;
  }

  /** Whether the field `name` of `subject` has the focus. */
  isIn(subject, name) {
    return subject === this.subject && document.hasFocus() && document.activeElement === this.boxes.get(name)?.input;
  }

  make(spec) {
    const id = `s-${spec.name}`;
    const ids = `${id}-error ${id}-hint ${id}-count`;
    const common = { id, name: spec.name, dir: "auto", "aria-describedby": ids };
    const input = spec.line
      ? el("input", { ...common, autocomplete: "off", list: spec.name === "section_title" ? "sections" : null, "aria-required": spec.name === "title" ? "true" : null })
      : el("textarea", { ...common, rows: spec.markdown ? 12 : 3, class: spec.markdown ? "mono" : null, spellcheck: "true" });
    const box = {
      spec, input,
      required: el("span", { class: "badge", hidden: true }),
      error: el("p", { class: "field-error", id: `${id}-error`, role: "alert" }),
      count: el("span", { class: "count", id: `${id}-count` }),
      theirs: el("p", { class: "note warn", hidden: true }),
    };
    input.addEventListener("input", () => {
      input.dataset.edited = "yes";
      if (this.subject) this.editor.session.edit(this.subject, spec.name, input.value);
      this.fill(box);
    });
    input.addEventListener("blur", () => this.subject && this.editor.session.leave(this.subject, spec.name));
    box.element = el("div", { class: "field" },
      el("div", { class: "label-line" }, el("label", { for: id }, spec.label), box.required, box.count),
      spec.markdown ? this.toolbar(input) : null,
      input, box.error, box.theirs,
      el("p", { class: "hint", id: `${id}-hint` }, spec.hint),
      spec.markdown ? this.syntaxHelp() : null);
    return box;
  }

  toolbar(input) {
    const press = (kind) => {
      const { value: text, selectionStart: start, selectionEnd: end } = input;
      const change = apply(kind, { text, start, end });
      input.focus();
      input.setSelectionRange(change.from, change.to);
      // Inserted like typed text, so that the browser can undo it.
      const typed = change.insert === "" ? document.execCommand("delete") : document.execCommand("insertText", false, change.insert);
      if (!typed) {
        input.setRangeText(change.insert, change.from, change.to);
        input.dispatchEvent(new Event("input", { bubbles: true }));
      }
      input.setSelectionRange(change.start, change.end);
    };
    input.addEventListener("keydown", (event) => {
      const kind = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && KEYS[event.key.toLowerCase()];
      if (!kind) return;
      event.preventDefault();
      press(kind);
    });
    const buttons = BUTTONS.map(([kind, label, text, keys], index) =>
      el("button", {
        type: "button", class: `small tool-${kind}`, tabindex: index === 0 ? 0 : -1, "aria-label": label,
        title: keys ? `${label} (${keys})` : label, dataset: { markdown: kind }, onclick: () => press(kind),
      }, text));
    const bar = el("div", { class: "toolbar", role: "toolbar", "aria-label": "Markdown", "aria-controls": input.id }, ...buttons);
    bar.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (at < 0 || next === undefined) return;
      event.preventDefault();
      buttons.forEach((button) => { button.tabIndex = -1; });
      const button = buttons[(next + buttons.length) % buttons.length];
      button.tabIndex = 0;
      button.focus();
    });
    return bar;
  }

  syntaxHelp() {
    const rows = SYNTAX.map(([code, text]) => el("div", {}, el("dt", {}, el("code", {}, code)), el("dd", {}, text)));
    return el("details", { class: "cheats" }, el("summary", {}, "Markdown syntax"), el("dl", {}, ...rows),
      el("p", { class: "hint" }, "HTML tags are removed when the step is served. Your text is kept unchanged; the preview shows the difference."));
  }

  show() {
    const own = this.editor.session.step(this.editor.chosen);
    this.subject = own ?? null;
    this.form.hidden = !own;
    if (!own) return say(this.title, this.editor.session.steps.length === 0 ? "No steps yet" : "Select a step");
    const at = this.editor.session.steps.indexOf(own);
    say(this.title, `Step ${at + 1} of ${this.editor.session.steps.length}`);
    for (const box of this.boxes.values()) this.fill(box);
    const all = [...new Set(this.editor.session.steps.map((step) => step.fields.section_title.text))].filter(Boolean);
    if (this.listed !== all.join("\n")) {
      this.listed = all.join("\n");
      this.sections.replaceChildren(...all.map((section) => el("option", { value: section })));
    }
  }

  fill(box) {
    const { spec, input } = box;
    const it = this.subject?.fields[spec.name];
    if (!it) return;
    if (input.value !== it.text.replace(/\r\n?/g, "\n")) input.value = it.text;
    const kind = this.editor.session.model.head.fields.type.text;
    const required = REQUIRED[spec.name]?.includes(kind) ?? false;
    const empty = it.text.trim() === "";
    box.required.hidden = !required || spec.name === "title";
    box.required.className = `badge ${empty ? "warn" : ""}`;
    say(box.required, empty ? "Missing: required to publish" : "Required to publish");
    const size = spec.line ? characters(it.text) : bytes(it.text);
    const max = spec.line ? MAX_LINE : MAX_TEXT;
    const unit = spec.line ? "characters" : "bytes";
    say(box.count, size > max * 0.8 || spec.line || spec.markdown ? `${size.toLocaleString()} of ${max.toLocaleString()} ${unit}` : "");
    box.count.classList.toggle("over", size > max);
    const error = it.refused && isDirty(it) && it.refused.text === it.text ? it.refused.message : "";
    say(box.error, error);
    if (error) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    box.theirs.hidden = it.theirs === null || isConflict(it);
    if (!box.theirs.hidden) say(box.theirs, "Another user has just changed this text. Their version is shown when you leave the field.");
  }

  focus(name = "title", select = false) {
    const { input } = this.boxes.get(name);
    input.focus();
    if (select) input.select();
  }
}
