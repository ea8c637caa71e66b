// The editor page. docs/console.md, "The editor", describes its behaviour.

import { api } from "./console.js";
import { el, say } from "./dom.js";
import { Conflicts } from "./editor-conflict.js";
import { Fields } from "./editor-fields.js";
import { Head } from "./editor-head.js";
import { History } from "./editor-history.js";
import { previous, toStep } from "./editor-model.js";
import { Preview } from "./editor-preview.js";
import { Session } from "./editor-session.js";
import { Steps } from "./editor-steps.js";

const POLL_MS = 5_000;
const UNDO_MS = 10_000;

class Editor {
  constructor(root) {
    this.root = root;
    this.chosen = new URLSearchParams(location.search).get("step");
    this.session = new Session({
      id: root.dataset.walkthrough,
      api,
      storage: window.localStorage,
      who: root.dataset.viewer,
      key: () => crypto.randomUUID(),
      focused: (subject, name) => this.fields.isIn(subject, name) || this.head.isIn(subject, name),
    });
    const part = (name) => root.querySelector(name);
    this.panes = part(".panes");
    this.head = new Head(this, root);
    this.steps = new Steps(this, part(".pane-steps"));
    this.fields = new Fields(this, part(".pane-edit"));
    this.history = new History(this, part(".pane-edit"));
    this.preview = new Preview(this, part(".pane-preview"), root.dataset.at);
    this.conflicts = new Conflicts(this, part("[data-conflict]"), () => this.session.step(this.chosen));
    this.headConflicts = new Conflicts(this, el("div"), () => this.session.model?.head);
    this.banner = part("[data-banner]");
    this.banner.append(el("div", { class: "banner" }), this.headConflicts.place);
    this.trash = [];
    this.session.on((kind, detail) => this.handle(kind, detail));
    this.listen();
  }

  async start() {
    this.head.status();
    try {
      await this.session.load();
    } catch (error) {
      return this.showWarning(error.message, el("a", { href: location.href }, "Reload the page"));
    }
    this.choose(this.session.step(this.chosen) ? this.chosen : (this.session.steps[0]?.id ?? null), false);
    await this.showDeleted();
    setInterval(() => document.visibilityState === "visible" && this.session.poll(), POLL_MS);
  }

  listen() {
    for (const button of this.root.querySelectorAll("[data-add]")) {
      button.addEventListener("click", () => this.add(this.session.steps.at(-1)?.id));
    }
    for (const button of this.root.querySelectorAll("[data-pane]")) {
      button.addEventListener("click", () => this.pane(button.dataset.pane));
    }
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") return this.session.suspend();
      this.session.resume();
      this.session.poll();
    });
    window.addEventListener("pagehide", () => this.session.suspend());
    for (const event of ["online", "focus"]) window.addEventListener(event, () => this.session.resume());
    // Ctrl+S saves immediately.
    document.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "s" || !(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey) return;
      event.preventDefault();
      this.session.flush().then(() => this.session.state === "saved" && this.announce("Saved."));
    });
    for (const button of this.root.querySelectorAll("[data-rewind]")) {
      button.addEventListener("click", () => this.rewind(button.dataset.rewind));
    }
    document.addEventListener("keydown", (event) => this.rewindByKey(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.session.isUnsaved) event.preventDefault();
    });
    // Saves pending changes before navigating to another page of this walkthrough.
    this.root.addEventListener("click", async (event) => {
      const link = event.target.closest("a[data-leave]");
      if (!link || !this.session.isUnsaved || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      await Promise.race([this.session.flush(), new Promise((resolve) => setTimeout(resolve, 3_000))]);
      location.assign(link.href);
    });
  }

  handle(kind, detail) {
    if (kind === "notice") return this.toast(detail.text);
    if (kind === "problem") return this.toast(detail, null, true);
    if (kind === "others") return this.others(detail);
    this.head.status();
    if (this.session.state !== this.shown) {
      this.shown = this.session.state;
      this.showBanner();
    }
    if (!this.session.model || kind === "status") return;
    if (!this.session.step(this.chosen) && kind === "model") this.selectNeighbour();
    const none = this.session.steps.length === 0;
    this.root.classList.toggle("none", none);
    this.root.querySelector("[data-no-steps]").hidden = !none;
    this.steps.show();
    this.head.show();
    this.conflicts.show();
    this.headConflicts.show();
    this.fields.show();
    this.history.show();
    this.root.querySelector('[data-rewind="undo"]').disabled = this.session.undoing.done.length === 0;
    this.root.querySelector('[data-rewind="redo"]').disabled = this.session.undoing.undone.length === 0;
    this.preview.refresh();
  }

  /** Selects the step at the position of a step that no longer exists. */
  selectNeighbour() {
    const { steps } = this.session;
    this.chosen = (steps[this.place ?? 0] ?? steps.at(-1))?.id ?? null;
    this.updateUrl();
  }

  others({ added, changed, removed }) {
    const parts = [];
    const count = (n) => (n === 1 ? "1 step" : `${n} steps`);
    if (added.length > 0) parts.push(`added ${count(added.length)}`);
    if (changed.length > 0) parts.push(`changed ${count(changed.length)}`);
    if (removed.length > 0) parts.push(`deleted ${removed.map((own) => `“${own.fields.title.text}”`).join(", ")}`);
    if (parts.length > 0) this.announce(`Another user ${parts.join(", ")}.`);
    for (const own of removed) {
      if (!own.gone && !own.leaving) this.toast(`Another user deleted “${own.fields.title.text}”.`);
    }
  }

  showBanner() {
    const { state } = this.session;
    const login = `/login?${new URLSearchParams({ next: "/" })}`;
    if (state === "signed-out") {
      this.showWarning("Your session has expired. Your changes are kept in this browser and saved after you sign in.",
        el("a", { href: login, target: "_blank", rel: "noopener" }, "Sign in (new tab)"));
    } else if (state === "lost") {
      this.showWarning("The server cannot be reached. You can continue editing: your changes are kept in this browser and saved when the connection is restored.",
        el("button", { type: "button", class: "small", onclick: () => this.session.resume() }, "Retry now"));
    } else if (state === "deleted") {
      this.showWarning("Another user deleted this walkthrough. Copy any text that you still need.",
        el("a", { href: this.root.querySelector(".crumbs a").href }, "Go to walkthroughs"));
    } else {
      this.banner.firstChild.replaceChildren();
    }
  }

  showWarning(text, action) {
    this.banner.firstChild.replaceChildren(el("div", { class: "note warn with-action" }, el("p", {}, text), action));
  }

  // Steps

  /** Selects the step `id`. With `show`, also opens the edit pane on small screens. */
  choose(id, show) {
    this.chosen = id;
    this.updateUrl();
    this.handle("model");
    this.root.querySelector(".pane-edit").scrollTop = 0;
    if (show) this.pane("edit");
  }

  /** Updates the step in the URL of the page. */
  updateUrl() {
    const url = new URL(location.href);
    if (this.chosen) url.searchParams.set("step", this.chosen);
    else url.searchParams.delete("step");
    history.replaceState(null, "", url);
    this.place = Math.max(0, this.session.steps.findIndex((own) => own.id === this.chosen));
  }

  pane(name) {
    this.panes.dataset.shown = name;
    for (const button of this.root.querySelectorAll("[data-pane]")) {
      button.setAttribute("aria-pressed", String(button.dataset.pane === name));
    }
    if (name === "preview") this.preview.refresh(0);
  }

  /** Adds a step after the step `after`, in its section. */
  async add(after) {
    if (!this.session.model) return;
    const id = await this.session.add(after, this.session.step(after)?.fields.section_title.text);
    if (!id) return;
    this.choose(id, true);
    this.fields.focus("title", true);
    this.announce(`Step ${this.place + 1} added.`);
  }

  async duplicate(id) {
    const copy = await this.session.duplicate(id);
    if (!copy) return;
    this.choose(copy, false);
    this.steps.focus(copy);
    this.announce(`Duplicated as step ${this.place + 1}.`);
  }

  async remove(id) {
    const { steps } = this.session;
    const at = steps.findIndex((own) => own.id === id);
    if (at < 0) return;
    const title = steps[at].fields.title.text;
    if (steps[at].gone) {
      this.choose(id, true);
      return this.announce("Another user has already deleted this step. Decide above the fields what to do with your text.");
    }
    const next = (steps[at + 1] ?? steps[at - 1])?.id ?? null;
    const removing = this.session.remove(id);
    if (id === this.chosen) this.choose(next, false);
    if (next) this.steps.focus(next);
    else this.root.querySelector("[data-no-steps] button").focus();
    const removed = await removing;
    if (removed) return this.offerRestore(removed, title);
    this.choose(id, false);
    this.steps.focus(id);
  }

  /** Undoes or redoes the last change and selects the changed step. */
  rewind(direction) {
    const change = this.session.model && this.session.rewind(direction);
    if (!change) return this.announce(direction === "undo" ? "Nothing to undo." : "Nothing to redo.");
    if (change.id !== "head" && change.id !== this.chosen) this.choose(change.id, false);
    this.announce(direction === "undo" ? "Undone." : "Redone.");
  }

  /** Ctrl+Z: the browser undoes text typed since the page was loaded; this method undoes earlier changes. */
  rewindByKey(event) {
    const key = event.key.toLowerCase();
    if (!(event.ctrlKey || event.metaKey) || event.altKey || !["z", "y"].includes(key)) return;
    const box = event.target.closest("input, textarea, select");
    if (box && (box.dataset.edited || !box.closest("[data-form]"))) return;
    event.preventDefault();
    this.rewind(key === "y" || event.shiftKey ? "redo" : "undo");
  }

  /** Lists steps that were deleted in earlier sessions, so that they can be restored too. */
  async showDeleted() {
    try {
      for (const { id, revision } of await this.session.deletedSteps()) {
        if (!this.trash.some((it) => it.step.id === id)) this.trash.push({ step: { id }, title: revision.title, number: revision.number });
      }
      this.showTrash();
    } catch {
      // The list is optional; editing does not depend on it.
    }
  }

  /** Announces a deleted step and offers to restore it. */
  offerRestore(removed, title) {
    this.trash.unshift({ ...removed, title });
    this.showTrash();
    this.toast(`“${title}” was deleted.`, { label: "Undo", run: () => this.undo(removed.step.id) });
  }

  async undo(id) {
    const removed = this.trash.find((it) => it.step.id === id);
    if (!removed) return;
    const restored = await (removed.number
      ? this.session.restoreRevision(id, removed.number)
      : this.session.restoreStep(removed));
    if (!restored) return;
    this.trash = this.trash.filter((it) => it !== removed);
    this.showTrash();
    this.choose(restored, false);
    this.steps.focus(restored);
    this.announce(`“${removed.title}” restored as step ${this.place + 1}.`);
  }

  async restoreOwn(id) {
    const { steps } = this.session;
    const at = steps.findIndex((own) => own.id === id);
    const before = steps.slice(0, at).reverse().find((own) => !own.gone);
    await this.session.restoreStep({ step: toStep(this.session.step(id)), after: before?.id ?? null });
  }

  discardDeleted(id) {
    const own = this.session.step(id);
    const removed = { step: toStep(own), after: previous(this.session.model, id) };
    this.session.discardDeleted(id);
    this.offerRestore(removed, own.fields.title.text);
  }

  showTrash() {
    this.root.querySelector("[data-trash]").hidden = this.trash.length === 0;
    this.root.querySelector("[data-trash-list]").replaceChildren(...this.trash.map(({ step, title }) =>
      el("li", {}, el("span", {}, title), " ",
        el("button", { type: "button", class: "small", "aria-label": `Restore ${title}`, onclick: () => this.undo(step.id) }, "Restore"))));
  }

  /** Focuses the field of a resolved conflict. */
  focusField(subject, name) {
    if (subject === this.session.model.head) this.head.title.focus();
    else this.fields.focus(name);
  }

  // Messages

  announce(text) {
    const place = this.root.querySelector("[data-announce]");
    // Makes screen readers announce a repeated message.
    say(place, place.textContent === text ? `${text}\u00a0` : text);
  }

  /** Shows a message that disappears after a while, unless it is hovered or focused. */
  toast(text, action = null, bad = false) {
    const close = () => toast.remove();
    const toast = el("div", { class: bad ? "toast bad" : "toast", role: bad ? "alert" : "status" }, el("p", {}, text));
    if (action) {
      toast.append(el("button", { type: "button", class: "small", onclick: () => {
        close();
        action.run();
      } }, action.label));
    }
    toast.append(el("button", { type: "button", class: "small", "aria-label": "Dismiss", onclick: close }, "✕"));
    this.root.querySelector("[data-toasts]").append(toast);
    const wait = () => setTimeout(() => (toast.matches(":hover, :focus-within") ? wait() : close()), UNDO_MS);
    wait();
  }
}

new Editor(document.getElementById("editor")).start();
