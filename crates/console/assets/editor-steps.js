// The list of steps: selecting, adding, moving by pointer and keyboard, deleting, and sections.

import { arrange, el, say } from "./dom.js";
import { isConflict, isDirty, missing, previous, some } from "./editor-model.js";

const NAMES = { content: "content", context_for_agent: "context", operations_for_agent: "operations" };
/** The distance in pixels after which a press becomes a drag. */
const DRAG_AFTER = 6;

/**
 * `editor` provides the session, the selected ID, `choose(id, show)`, `announce(text)`, `add(after)`,
 * `duplicate(id)` and `remove(id)`.
 */
export class Steps {
  constructor(editor, root) {
    this.editor = editor;
    this.list = root.querySelector("[data-steps]");
    this.root = root;
    this.rows = new Map();
    this.renaming = null;
    this.list.addEventListener("keydown", (event) => this.key(event));
    this.list.addEventListener("pointerdown", (event) => this.press(event));
    // A drag ends with a click on the element below, which must not select a step.
    this.list.addEventListener("click", (event) => {
      if (this.dragged) event.stopPropagation();
    }, true);
  }

  get session() {
    return this.editor.session;
  }

  show() {
    const { steps } = this.session;
    const kind = this.session.model.head.fields.type.text;
    let section = "";
    const rows = steps.map((own, index) => {
      const row = this.rows.get(own.id) ?? this.make(own);
      const title = own.fields.section_title.text;
      // Steps without a section need a heading unless they come first. Otherwise, they would seem to belong to the
      // section above.
      const begins = title !== section ? title : null;
      section = title;
      this.fill(row, own, { index, begins, kind });
      return row.item;
    });
    for (const [id, row] of this.rows) {
      if (steps.some((own) => own.id === id)) continue;
      row.item.remove();
      this.rows.delete(id);
    }
    arrange(this.list, rows);
    this.list.removeAttribute("aria-busy");
    this.list.hidden = steps.length === 0;
    this.root.querySelector("[data-steps-help]").hidden = steps.length < 2;
    say(this.root.querySelector("[data-count]"), steps.length === 0 ? "" : String(steps.length));
  }

  make(own) {
    const { id } = own;
    const tool = (label, text, onClick) => el("button", {
      type: "button", class: "small", "aria-label": label === text ? null : label, title: label === text ? null : label,
      dataset: { tool: label }, onclick: onClick,
    }, text);
    const row = {
      heading: el("div", { class: "section-head", hidden: true }),
      grip: el("span", { class: "grip", "aria-hidden": "true" }),
      number: el("span", { class: "step-number" }),
      title: el("span", { class: "step-title" }),
      marks: el("span", { class: "step-marks" }),
      up: tool("Move up", "↑", () => this.shift(id, -1)),
      down: tool("Move down", "↓", () => this.shift(id, 1)),
    };
    row.open = el("button", { type: "button", class: "step-open", "aria-describedby": "steps-help", onclick: () => this.editor.choose(id, true) },
      row.number, el("span", { class: "step-text" }, row.title, row.marks));
    row.tools = el("div", { class: "step-tools", hidden: true },
      row.up, row.down,
      tool("Add below", "Add below", () => this.editor.add(id)),
      tool("Duplicate", "Duplicate", () => this.editor.duplicate(id)),
      tool("Delete", "Delete", () => this.editor.remove(id)));
    row.item = el("li", { dataset: { step: id } }, row.heading, el("div", { class: "step-row" }, row.grip, row.open), row.tools);
    this.rows.set(id, row);
    return row;
  }

  fill(row, own, { index, begins, kind }) {
    const chosen = own.id === this.editor.chosen;
    say(row.number, `${index + 1}.`);
    say(row.title, own.fields.title.text || "Untitled step");
    const lacks = missing(kind, own).map((name) => NAMES[name]);
    const marks = [];
    if (own.gone) marks.push(["bad", "Deleted by another user"]);
    else if (some(own, isConflict)) marks.push(["bad", "Conflict"]);
    else if (some(own, (it) => it.refused !== null && isDirty(it))) marks.push(["bad", "Not saved"]);
    if (lacks.length > 0) marks.push(["warn", `Missing: ${lacks.join(", ")}`]);
    const key = JSON.stringify(marks);
    if (row.marked !== key) {
      row.marked = key;
      row.marks.replaceChildren(...marks.map(([tone, text]) => el("span", { class: `badge ${tone}` }, text)));
    }
    row.open.toggleAttribute("data-chosen", chosen);
    if (chosen) row.open.setAttribute("aria-current", "step");
    else row.open.removeAttribute("aria-current");
    row.open.tabIndex = chosen || (!this.session.step(this.editor.chosen) && index === 0) ? 0 : -1;
    row.tools.hidden = !chosen;
    row.item.classList.toggle("chosen", chosen);
    row.up.disabled = index === 0;
    row.down.disabled = index === this.session.steps.length - 1;
    this.head(row, own, begins);
  }

  // Sections

  head(row, own, begins) {
    if (this.renaming === own.id) return;
    row.heading.hidden = begins === null;
    if (begins === null || row.heading.dataset.section === begins) return;
    row.heading.dataset.section = begins;
    const [text, label] = begins === "" ? ["Add name", "Add a section name"] : ["Rename", `Rename section ${begins}`];
    row.heading.replaceChildren(
      el("h3", {}, begins || "No section"),
      el("button", { type: "button", class: "link", "aria-label": label, onclick: () => this.rename(row, own.id) }, text));
  }

  /** Returns the IDs of consecutive steps of one section, starting with `id`. */
  sectionSteps(id) {
    const { steps } = this.session;
    const at = steps.findIndex((own) => own.id === id);
    const section = steps[at].fields.section_title.text;
    const rest = steps.slice(at);
    const end = rest.findIndex((own) => own.fields.section_title.text !== section);
    return rest.slice(0, end < 0 ? rest.length : end).map((own) => own.id);
  }

  rename(row, id) {
    this.renaming = id;
    const before = row.heading.dataset.section;
    const done = (save) => {
      if (this.renaming !== id) return;
      this.renaming = null;
      delete row.heading.dataset.section;
      const ids = this.sectionSteps(id);
      if (save && input.value !== before) {
        this.session.rename(ids, input.value);
        const steps = ids.length === 1 ? "1 step" : `${ids.length} steps`;
        this.editor.announce(input.value ? `Section of ${steps} set to ${input.value}.` : `Section removed from ${steps}.`);
      }
      this.show();
      (row.heading.querySelector("button") ?? row.open).focus();
    };
    const input = el("input", { "aria-label": before ? `New name of section ${before}` : "Section name", value: before, autocomplete: "off" });
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        done(event.key === "Enter");
      }
    });
    input.addEventListener("blur", () => done(true));
    row.heading.replaceChildren(input);
    input.select();
  }

  // Keyboard

  key(event) {
    const id = event.target.closest(".step-open")?.closest("[data-step]").dataset.step;
    if (!id) return;
    const ids = this.session.steps.map((own) => own.id);
    const at = ids.indexOf(id);
    if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      return this.shift(id, event.key === "ArrowUp" ? -1 : 1);
    }
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const next = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: ids.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      this.focus(ids[Math.max(0, Math.min(next, ids.length - 1))]);
    } else if (event.key === "Delete") {
      event.preventDefault();
      this.editor.remove(id);
    }
  }

  focus(id) {
    const row = this.rows.get(id);
    if (!row) return;
    for (const other of this.rows.values()) other.open.tabIndex = other === row ? 0 : -1;
    row.open.focus();
  }

  /** Moves a step one position up or down. */
  shift(id, by) {
    const { steps } = this.session;
    const at = steps.findIndex((own) => own.id === id);
    const to = at + by;
    if (to < 0 || to >= steps.length) return;
    const focus = document.activeElement;
    this.move(id, by < 0 ? (steps[to - 1]?.id ?? null) : steps[to].id);
    // Moving the element loses the focus.
    if (focus?.isConnected && !focus.disabled) focus.focus();
    else this.focus(id);
  }

  move(id, after) {
    if (this.session.step(id).gone) return this.editor.announce("Another user deleted this step. Restore it first.");
    // The server does not know deleted steps, so a step cannot be moved after one.
    while (after !== null && this.session.step(after)?.gone) after = previous(this.session.model, after);
    this.session.move(id, after);
    const at = this.session.steps.findIndex((own) => own.id === id);
    const own = this.session.step(id);
    const section = own.fields.section_title.text;
    const where = section ? `, in section ${section}` : "";
    this.editor.announce(`${own.fields.title.text}: now step ${at + 1} of ${this.session.steps.length}${where}.`);
  }

  // Pointer: a mouse can drag anywhere on the row, touch only on the grip, so that the page can still be scrolled.

  press(event) {
    const row = event.target.closest(".step-row");
    if (!row || event.button !== 0 || (event.pointerType !== "mouse" && !event.target.closest(".grip"))) return;
    const item = row.closest("[data-step]");
    const drag = { item, from: event.clientY, y: event.clientY, pointer: event.pointerId, on: false, place: null };
    this.dragged = false;
    const stop = new AbortController();
    const options = { signal: stop.signal };
    const end = (drop) => {
      stop.abort();
      clearInterval(drag.scrolling);
      this.mark(null);
      item.classList.remove("dragged");
      document.body.classList.remove("dragging");
      if (drop && drag.on && drag.place) this.drop(item.dataset.step, drag.place);
      setTimeout(() => { this.dragged = false; }, 0);
    };
    document.addEventListener("pointermove", (move) => {
      if (move.pointerId !== drag.pointer) return;
      drag.y = move.clientY;
      if (!drag.on && Math.abs(drag.y - drag.from) < DRAG_AFTER) return;
      if (!drag.on) this.begin(drag);
      move.preventDefault();
      drag.place = this.placeAt(drag.y);
      this.mark(drag.place);
    }, options);
    document.addEventListener("pointerup", (up) => up.pointerId === drag.pointer && end(true), options);
    document.addEventListener("pointercancel", (off) => off.pointerId === drag.pointer && end(false), options);
    document.addEventListener("keydown", (key) => key.key === "Escape" && end(false), options);
  }

  begin(drag) {
    drag.on = true;
    this.dragged = true;
    drag.item.classList.add("dragged");
    document.body.classList.add("dragging");
    getSelection()?.removeAllRanges();
    const pane = this.list.closest(".pane");
    drag.scrolling = setInterval(() => {
      const box = pane.scrollHeight > pane.clientHeight ? pane : document.scrollingElement;
      const [top, bottom] = box === pane ? [pane.getBoundingClientRect().top, pane.getBoundingClientRect().bottom] : [0, innerHeight];
      if (drag.y < top + 40) box.scrollTop -= 12;
      if (drag.y > bottom - 40) box.scrollTop += 12;
    }, 16);
  }

  /** Returns the drop position at `y`: the row, and whether before or after it. */
  placeAt(y) {
    const items = [...this.list.children];
    for (const item of items) {
      const box = item.querySelector(".step-row").getBoundingClientRect();
      if (y < box.top + box.height / 2) return { item, before: true };
    }
    return items.length > 0 ? { item: items.at(-1), before: false } : null;
  }

  mark(place) {
    for (const item of this.list.children) {
      item.classList.toggle("drop-before", place?.item === item && place.before);
      item.classList.toggle("drop-after", place?.item === item && !place.before);
    }
  }

  drop(id, { item, before }) {
    const ids = this.session.steps.map((own) => own.id).filter((other) => other !== id);
    const target = item.dataset.step;
    if (target === id) return;
    const at = ids.indexOf(target);
    this.move(id, before ? (ids[at - 1] ?? null) : target);
  }
}
