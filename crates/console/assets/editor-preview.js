// The preview of what users and agents receive, rendered by the server from the current fields.

import { localTimes } from "./times.js";
import { tabs } from "./dom.js";

const AFTER_MS = 250;
/** While the user types without a pause, the preview is updated after this time at the latest. */
const WITHIN_MS = 400;

export class Preview {
  constructor(editor, root, at) {
    Object.assign(this, { editor, root, at });
    this.read = root.querySelector("[data-read]");
    this.agent = root.querySelector("[data-agent]");
    this.played = root.querySelector("[data-played]");
    this.completed = 0;
    this.tab = "read";
    this.turn = 0;
    this.superseded = false;
    this.stepShown = null;
    this.firstChange = null;
    // The step of the request in progress, and whether its text has changed since.
    this.loading = null;
    this.again = false;
    this.select = tabs(root.querySelector("[data-preview-tabs]"), (tab) => {
      this.tab = tab.dataset.tab;
      this.shown = null;
      this.refresh(0);
    });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-play]");
      if (button && button.getAttribute("aria-disabled") !== "true") this.go(button.dataset.play);
    });
  }

  /** Schedules a refresh of the preview. */
  refresh(ms = AFTER_MS) {
    this.firstChange ??= Date.now();
    const left = Math.max(0, this.firstChange + WITHIN_MS - Date.now());
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.firstChange = null;
      this.show();
    }, Math.min(ms, left));
  }

  async show() {
    if (this.tab === "play") return this.play();
    const own = this.editor.session.step(this.editor.chosen);
    if (!own) return this.showMessage("Select a step to preview it.");
    if (own.gone) return this.showMessage("Another user deleted this step.");
    // A second request would supersede this one: if the server is slow, nothing would be shown while the user types.
    if (this.loading === own.id) {
      this.again = true;
      return;
    }
    const fields = new URLSearchParams({ step_id: own.id });
    for (const [name, it] of Object.entries(own.fields)) fields.set(name, it.text);
    const query = fields.toString();
    if (query === this.shown) return;
    this.loading = own.id;
    const html = await this.fetch(`${this.at}/preview`, { method: "POST", body: fields });
    if (this.loading === own.id) {
      this.loading = null;
      if (this.again) this.refresh(0);
      this.again = false;
    }
    if (html === null) {
      // Keeps the last preview of this step, but not of another step.
      if (this.stepShown !== own.id && !this.superseded) this.showMessage("The preview is not available because the server cannot be reached.");
      return;
    }
    this.shown = query;
    this.stepShown = own.id;
    const part = parse(html);
    const find = (name) => part.querySelector(`[data-part="${name}"]`);
    this.read.replaceChildren(...(find("read") ?? part).cloneNode(true).childNodes);
    this.agent.replaceChildren(...(find("agent") ?? part).childNodes);
  }

  /** Fetches a fragment, in which the server has escaped user content. Returns null on failure, or if superseded. */
  async fetch(url, options = {}) {
    this.turn += 1;
    const { turn } = this;
    try {
      const response = await fetch(url, { ...options, redirect: "error", headers: { "HX-Request": "true" } });
      const ours = response.headers.get("content-type")?.startsWith("text/html");
      const html = await response.text();
      this.superseded = turn !== this.turn;
      if (this.superseded) return null;
      return ours && response.status !== 401 ? html : null;
    } catch {
      this.superseded = turn !== this.turn;
      return null;
    }
  }

  showMessage(text) {
    this.shown = null;
    this.stepShown = null;
    for (const panel of [this.read, this.agent]) {
      const p = document.createElement("p");
      p.className = "soft";
      p.textContent = text;
      panel.replaceChildren(p);
    }
  }

  go(where) {
    this.completed = { back: Math.max(0, this.completed - 1), next: this.completed + 1, restart: 0 }[where];
    this.play();
  }

  async play() {
    // The play-through uses the saved draft.
    await this.editor.session.flush();
    const html = await this.fetch(`${this.at}/play?at=${this.completed}`);
    if (html === null) return;
    const part = parse(html);
    const state = part.querySelector("[data-total]");
    this.completed = state ? Number(state.dataset.completed) : 0;
    const total = state ? Number(state.dataset.total) : 0;
    const off = { back: this.completed === 0, next: this.completed >= total, restart: this.completed === 0 };
    for (const button of this.root.querySelectorAll("[data-play]")) {
      button.setAttribute("aria-disabled", String(off[button.dataset.play]));
    }
    this.played.replaceChildren(...part.childNodes);
    localTimes(this.played);
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}
