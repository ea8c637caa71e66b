// What people type into forms is not lost: a form whose session has ended is filled again after signing in, and leaving a
// form that was changed asks first. Kept in sessionStorage: of this tab, for this user, for an hour; never a secret.

import { forgetUndo } from "./editor-undo.js";

const KEY = "waypost.form";
const MAX_AGE_MS = 60 * 60 * 1_000;
const MAX_CHARS = 300_000;
/** Fields that are never kept. Files cannot be. */
const NEVER = new Set(["password", "file", "hidden", "submit", "button", "image", "reset"]);

/** The fields of `form` as they can be kept: name, type, value, and whether it is ticked. */
export function fieldsOf(form) {
  const kept = [];
  for (const field of form.elements) {
    if (!field.name || field.disabled || NEVER.has(field.type) || isPrivate(field)) continue;
    const { name, type } = field;
    if (type === "checkbox" || type === "radio") kept.push({ name, type, value: field.value, on: field.checked });
    else if (type === "select-multiple") kept.push({ name, type, values: [...field.selectedOptions].map((it) => it.value) });
    else kept.push({ name, type, value: field.value });
  }
  return kept;
}

/** A field that a person confirms with, or a one-time code. */
function isPrivate(field) {
  return "typed" in field.dataset || /one-time-code|password/.test(field.getAttribute("autocomplete") ?? "");
}

/** Puts kept values into `form`; gives those that have no field any more. */
export function fill(form, kept) {
  const taken = new Set();
  return kept.filter((it) => {
    const fields = [...form.elements].filter((field) => field.name === it.name && field.type === it.type && !isPrivate(field));
    const ticked = it.type === "checkbox" || it.type === "radio";
    const field = fields.find((own) => !taken.has(own) && (!ticked || own.value === it.value));
    if (!field) return ticked ? it.on : (it.value ?? "") !== "";
    taken.add(field);
    if (ticked) field.checked = it.on;
    else if (it.values) for (const option of field.options) option.selected = it.values.includes(option.value);
    else field.value = it.value;
    return false;
  });
}

/** Whether a field says something else than when its page was made. */
export function isChanged(field) {
  if (!field.name || field.disabled || isPrivate(field)) return false;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.options) {
    const options = [...field.options];
    // Without a choice by the server the first option of a list is chosen.
    const none = field.type === "select-one" && !options.some((option) => option.defaultSelected);
    return options.some((option, at) => option.selected !== (none ? at === 0 : option.defaultSelected));
  }
  if (field.type === "file") return field.files.length > 0;
  return !NEVER.has(field.type) && field.value !== field.defaultValue;
}

/** What is kept of the form that was sent last. */
export class Kept {
  constructor(storage, now = Date.now) {
    this.storage = storage;
    this.now = now;
  }

  read() {
    try {
      const kept = JSON.parse(this.storage.getItem(KEY));
      if (kept && this.now() - kept.at < MAX_AGE_MS && Array.isArray(kept.fields)) return kept;
    } catch {
      // Not ours, or the browser keeps nothing.
    }
    this.drop();
    return null;
  }

  write(kept) {
    try {
      const text = JSON.stringify({ ...kept, at: kept.at ?? this.now() });
      if (text.length <= MAX_CHARS) this.storage.setItem(KEY, text);
      else this.drop();
    } catch {
      // Full, or forbidden by the browser.
    }
  }

  drop() {
    try {
      this.storage.removeItem(KEY);
    } catch {
      // As above.
    }
  }

  /**
   * Where a form of the page at `path` comes back. A form that was refused is shown again at the address that it was sent
   * to, which may exist for sending only, so it comes back where it was first. Ask before `arrive`, which drops it.
   */
  home(path, wasRedirected) {
    const kept = this.read();
    return kept && !kept.lost && !wasRedirected && kept.action === path.split("?")[0] ? kept.page : path;
  }

  /**
   * A page of `viewer` (null: nobody is signed in) at `path` was loaded. Gives what to put back into its form, once.
   * What was sent and answered is dropped; after a page for visitors it was not answered.
   */
  arrive(viewer, path) {
    const kept = this.read();
    if (!kept) return null;
    if (!viewer) {
      if (!kept.lost) this.write({ ...kept, lost: true });
      return null;
    }
    if (!kept.lost || kept.viewer !== viewer) this.drop();
    if (!kept.lost || kept.viewer !== viewer || kept.page !== path) return null;
    this.drop();
    return kept;
  }
}

/** Forms that are sent to be kept, and asked about: those that change something, not lists where one ticks rows. */
const isWritten = (form) => form instanceof HTMLFormElement && form.method === "post" && !form.matches("[data-bulk], [data-no-warning]");

function same(action) {
  return [...document.forms].filter((form) => isWritten(form) && new URL(form.action).pathname === action);
}

/** Puts `kept` back into the page, and says so. */
function putBack(kept) {
  const form = same(kept.action)[kept.index] ?? same(kept.action)[0];
  const left = form ? fill(form, kept.fields) : kept.fields.filter((it) => (it.value ?? "") !== "" && it.on !== false);
  form?.closest("dialog")?.showModal();
  for (let up = form?.closest("details"); up; up = up.parentElement.closest("details")) up.open = true;
  const note = document.createElement("div");
  note.className = "note";
  note.setAttribute("role", "status");
  note.dataset.restored = "";
  note.append(form
    ? "Your session had ended, so the form was not sent. What you typed is back: check it and send it again. Files and secrets have to be entered again."
    : "Your session had ended, so the form was not sent. Its form is no longer on this page. This is what you typed:");
  for (const it of left) {
    const text = document.createElement("pre");
    text.textContent = `${it.name}: ${it.value ?? it.values.join(", ")}`;
    note.append(text);
  }
  (form ?? document.querySelector("main")).prepend(note);
  note.scrollIntoView({ block: "center" });
}

/** Starts all of it on this page. */
export function keepForms(viewer) {
  const kept = new Kept(window.sessionStorage);
  const path = location.pathname + location.search;
  const page = kept.home(path, performance.getEntriesByType("navigation")[0]?.redirectCount > 0);
  let sending = false;
  const back = kept.arrive(viewer, path);
  if (back) putBack(back);
  if (!viewer) {
    returnAfterSignIn(kept.read());
    return;
  }
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "post" && new URL(form.action).pathname === "/logout") {
      kept.drop();
      forgetUndo(window.localStorage);
    }
    if (!isWritten(form)) return;
    const action = new URL(form.action).pathname;
    kept.write({ viewer, page, action, index: same(action).indexOf(form), fields: fieldsOf(form) });
    sending = !event.defaultPrevented;
  });
  window.addEventListener("pageshow", () => { sending = false; });
  window.addEventListener("beforeunload", (event) => {
    const unsent = [...document.forms].filter((form) => isWritten(form) && [...form.elements].some(isChanged));
    if (!sending && unsent.length > 0) event.preventDefault();
  });
}

/** The sign-in leads back to the page of the form. */
function returnAfterSignIn(kept) {
  if (!kept?.lost) return;
  for (const input of document.querySelectorAll('form input[type="hidden"][name="next"]')) {
    if (["", "/"].includes(input.value)) input.value = kept.page;
  }
  for (const link of document.querySelectorAll('a[href^="/login/with/"]')) {
    const url = new URL(link.href);
    if (["", "/", null].includes(url.searchParams.get("next"))) {
      url.searchParams.set("next", kept.page);
      link.setAttribute("href", url.pathname + url.search);
    }
  }
}
