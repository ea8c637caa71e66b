// The script of all console pages: menus, dialogs, copy buttons and times. Larger features have their own files.

import { protectForms } from "./forms.js";
import { localTimes } from "./times.js";

// Closes <details class="menu"> on a click outside and on Escape.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// On narrow windows, the current tab may be outside of the visible part of its list.
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

// Button actions: [data-open=ID], [data-close], [data-nav-toggle] and [data-copy].
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.open) document.getElementById(button.dataset.open)?.showModal();
  if ("close" in button.dataset) button.closest("dialog")?.close();
  if ("navToggle" in button.dataset) {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
  }
  if ("copy" in button.dataset) {
    const text = button.dataset.copy || button.parentElement.querySelector("code, input, textarea");
    await navigator.clipboard.writeText(typeof text === "string" ? text : (text.value ?? text.textContent));
    const before = button.innerHTML;
    button.textContent = "Copied";
    setTimeout(() => { button.innerHTML = before; }, 1500);
  }
});

// A destructive button stays disabled until the confirmation text is entered.
document.addEventListener("input", (event) => {
  const expected = event.target.dataset?.typed;
  if (expected === undefined) return;
  event.target.form.querySelector("button[type=submit]").disabled = event.target.value !== expected;
});

// Prevents a second submit of the same form.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method === "dialog" || form.matches("[hx-post], [hx-get]")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

protectForms(document.body.dataset.viewer ?? null);

// Formats the times of the page, and updates relative times every minute.
localTimes(document);
setInterval(() => localTimes(document), 60_000);
document.addEventListener("htmx:afterSwap", (event) => localTimes(event.target));

/**
 * Calls the REST API with the session of this page.
 * @param {string} method
 * @param {string} path below /api/v1
 * @param {{body?: unknown, ifMatch?: string, keepalive?: boolean, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>}
 */
export function api(method, path, { body, ifMatch, keepalive, headers, signal } = {}) {
  const allHeaders = { Accept: "application/json", ...headers };
  if (document.body.dataset.org) allHeaders["Waypost-Organization"] = document.body.dataset.org;
  if (body !== undefined) allHeaders["Content-Type"] = "application/json";
  if (ifMatch) allHeaders["If-Match"] = ifMatch;
  const text = body === undefined ? undefined : JSON.stringify(body);
  return fetch(`/api/v1${path}`, { method, headers: allHeaders, keepalive, signal, body: text });
}
