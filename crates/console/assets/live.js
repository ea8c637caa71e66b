// Live parts of pages: an element with [data-live=URL] shows a fragment that the server renders, and is updated every
// three seconds. Unchanged fragments are not sent again (`If-None-Match`). [data-announce] in a fragment is read out by
// screen readers when it changes. [data-gone] is the message for a resource that no longer exists.

import { localTimes } from "./times.js";
import { el, say } from "./dom.js";

const INTERVAL_MS = 3_000;
const MAX_INTERVAL_MS = 30_000;
/** The number of failures in a row after which the page says that it may be outdated. */
const FAILURES_SHOWN = 2;

/** Returns what identifies the focused element in the next version of its fragment. */
function selectorOf(element) {
  if (element.id) return `#${CSS.escape(element.id)}`;
  const href = element.getAttribute("href");
  if (href) return `a[href="${CSS.escape(href)}"]`;
  const label = element.getAttribute("aria-label");
  return label ? `[aria-label="${CSS.escape(label)}"]` : null;
}

class Live {
  constructor(root) {
    this.root = root;
    this.tag = null;
    this.failures = 0;
    this.announcement = root.querySelector("[data-announce]")?.dataset.announce ?? "";
    this.status = el("p", { class: "visually-hidden", role: "status" });
    this.problem = el("p", { class: "note warn", role: "status", hidden: true });
    root.before(this.problem);
    root.after(this.status);
    this.schedule(INTERVAL_MS);
  }

  schedule(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), delay);
  }

  stop(message) {
    this.isStopped = true;
    this.warn(message);
  }

  warn(message) {
    this.problem.hidden = message === "";
    say(this.problem, message);
  }

  async poll() {
    if (this.isStopped || document.hidden) return;
    try {
      const headers = { Accept: "text/html", "HX-Request": "true", ...(this.tag ? { "If-None-Match": this.tag } : {}) };
      const response = await fetch(this.root.dataset.live, { headers, signal: AbortSignal.timeout(20_000) });
      if (response.status === 401) return this.stop("Your session has expired. Reload the page to sign in again.");
      if ([403, 404].includes(response.status)) return this.stop(this.root.dataset.gone ?? "This page no longer exists.");
      if (response.status !== 304) {
        if (!response.ok) throw new Error(`status ${response.status}`);
        const text = await response.text();
        // Text that the user is about to copy stays as it is.
        if (this.isSelected()) return this.schedule(INTERVAL_MS);
        this.tag = response.headers.get("etag");
        this.show(text);
      }
      this.failures = 0;
      this.warn("");
    } catch {
      this.failures += 1;
      if (this.failures >= FAILURES_SHOWN) this.warn("The server does not respond. The state below may be outdated.");
    }
    this.schedule(Math.min(INTERVAL_MS * 2 ** this.failures, MAX_INTERVAL_MS));
  }

  isSelected() {
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && this.root.contains(selection.anchorNode);
  }

  show(text) {
    const next = el("template");
    next.innerHTML = text;
    localTimes(next.content);
    // Opened details stay open, and the focus stays where it is.
    for (const open of this.root.querySelectorAll("details[open][id]")) {
      const same = next.content.getElementById(open.id);
      if (same) same.open = true;
    }
    const focused = this.root.contains(document.activeElement) ? selectorOf(document.activeElement) : null;
    this.root.replaceChildren(next.content);
    if (focused) this.root.querySelector(focused)?.focus({ preventScroll: true });
    const announcement = this.root.querySelector("[data-announce]")?.dataset.announce ?? "";
    if (announcement !== this.announcement) say(this.status, announcement);
    this.announcement = announcement;
    this.root.dispatchEvent(new CustomEvent("live", { bubbles: true }));
  }
}

const all = [...document.querySelectorAll("[data-live]")].map((root) => new Live(root));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) for (const live of all) live.schedule(0);
});
