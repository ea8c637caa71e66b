// Prevents the loss of form input: a form submitted after the session has expired is filled in again after signing in,
// and leaving a changed form asks for confirmation. Input is stored in sessionStorage per tab and user for one hour.
// Secrets are never stored.

import { forgetUndo } from "./editor-undo.js";

const KEY = "waypost.form";
const MAX_AGE_MS = 60 * 60 * 1_000;
const MAX_CHARS = 300_000;
/** Field types that are never stored. Files cannot be stored. */
const NEVER = new Set(["password", "file", "hidden", "submit", "button", "image", "reset"]);

/** Returns the storable fields of `form`: name, type, value, and whether it is checked. */
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

/** Whether a field contains a confirmation, a password, another secret or a one-time code. */
function isPrivate(field) {
  return "typed" in field.dataset || "secret" in field.dataset || /one-time-code|password/.test(field.getAttribute("autocomplete") ?? "");
}

/** Fills stored values into `form`. Returns the values whose field no longer exists. */
export function fill(form, kept) {
  const taken = new Set();
  return kept.filter((it) => {
    const fields = [...form.elements].filter((field) => field.name === it.name && field.type === it.type && !isPrivate(field));
    const isCheckable = it.type === "checkbox" || it.type === "radio";
    const field = fields.find((own) => !taken.has(own) && (!isCheckable || own.value === it.value));
    if (!field) return isCheckable ? it.on : (it.value ?? "") !== "";
    taken.add(field);
    if (isCheckable) field.checked = it.on;
    else if (it.values) for (const option of field.options) option.selected = it.values.includes(option.value);
    else field.value = it.value;
    return false;
  });
}

/** Whether the value of a field differs from its initial value. */
export function isChanged(field) {
  if (!field.name || field.disabled || isPrivate(field)) return false;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  if (field.options) {
    const options = [...field.options];
    // If the server selects no option, the browser selects the first.
    const none = field.type === "select-one" && !options.some((option) => option.defaultSelected);
    return options.some((option, at) => option.selected !== (none ? at === 0 : option.defaultSelected));
  }
  if (field.type === "file") return field.files.length > 0;
  return !NEVER.has(field.type) && field.value !== field.defaultValue;
}

/** The stored fields of the last submitted form. */
export class FormStore {
  constructor(storage, now = Date.now) {
    this.storage = storage;
    this.now = now;
  }

  read() {
    try {
      const kept = JSON.parse(this.storage.getItem(KEY));
      if (kept && this.now() - kept.at < MAX_AGE_MS && Array.isArray(kept.fields)) return kept;
    } catch {
      // Malformed, or storage is not available.
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
      // Storage is full or not available.
    }
  }

  drop() {
    try {
      this.storage.removeItem(KEY);
    } catch {
      // Storage is not available.
    }
  }

  /**
   * Returns the path at which a form of the page at `path` is restored. A rejected form is shown at the URL it was
   * submitted to, which may only accept POST, so the form is restored at its original page. Call this before `arrive`,
   * which drops the stored form.
   */
  home(path, wasRedirected) {
    const kept = this.read();
    return kept && !kept.lost && !wasRedirected && kept.action === path.split("?")[0] ? kept.page : path;
  }

  /**
   * Called when `viewer` (null if no user is signed in) loads the page at `path`. Returns the stored form to restore,
   * once. If no user is signed in, the session had expired, so the form was not submitted and is kept. Otherwise, the
   * form was submitted and is dropped.
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

/** Whether a form is protected: forms that change something, except lists with row selection. */
const isProtected = (form) => form instanceof HTMLFormElement && form.method === "post" && !form.matches("[data-bulk], [data-no-warning]");

function formsWithAction(action) {
  return [...document.forms].filter((form) => isProtected(form) && new URL(form.action).pathname === action);
}

/** Restores `kept` in the page and shows a note. */
function restore(kept) {
  const form = formsWithAction(kept.action)[kept.index] ?? formsWithAction(kept.action)[0];
  const left = form ? fill(form, kept.fields) : kept.fields.filter((it) => (it.value ?? "") !== "" && it.on !== false);
  form?.closest("dialog")?.showModal();
  for (let up = form?.closest("details"); up; up = up.parentElement.closest("details")) up.open = true;
  const note = document.createElement("div");
  note.className = "note";
  note.setAttribute("role", "status");
  note.dataset.restored = "";
  note.append(form
    ? "Your session had expired, so the form was not submitted. Your input has been restored: review it and submit the form again. Select files and enter secrets again."
    : "Your session had expired, so the form was not submitted. The form is no longer on this page. This was your input:");
  for (const it of left) {
    const text = document.createElement("pre");
    text.textContent = `${it.name}: ${it.value ?? it.values.join(", ")}`;
    note.append(text);
  }
  (form ?? document.querySelector("main")).prepend(note);
  note.scrollIntoView({ block: "center" });
}

/** Sets up form protection on this page. */
export function protectForms(viewer) {
  const store = new FormStore(window.sessionStorage);
  const path = location.pathname + location.search;
  const page = store.home(path, performance.getEntriesByType("navigation")[0]?.redirectCount > 0);
  let sending = false;
  const restored = store.arrive(viewer, path);
  if (restored) restore(restored);
  if (!viewer) {
    returnAfterSignIn(store.read());
    return;
  }
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method === "post" && new URL(form.action).pathname === "/logout") {
      store.drop();
      forgetUndo(window.localStorage);
    }
    if (!isProtected(form)) return;
    const action = new URL(form.action).pathname;
    store.write({ viewer, page, action, index: formsWithAction(action).indexOf(form), fields: fieldsOf(form) });
    sending = !event.defaultPrevented;
  });
  window.addEventListener("pageshow", () => { sending = false; });
  window.addEventListener("beforeunload", (event) => {
    const unsent = [...document.forms].filter((form) => isProtected(form) && [...form.elements].some(isChanged));
    if (!sending && unsent.length > 0) event.preventDefault();
  });
}

/** Makes the sign-in return to the page of the form. */
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
