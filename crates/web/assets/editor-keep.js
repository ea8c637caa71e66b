// Texts that are not saved yet, kept in this browser until they are: a crash, a reload or a lost connection loses nothing.

import { edit, field, isDirty, receive, some } from "./editor-model.js";

const PREFIX = "waypost.text";
const LONGEST_MS = 30 * 24 * 60 * 60 * 1_000;

/** `storage` as localStorage; `who` reads and writes here; `tab` is this window. */
export class Keeper {
  constructor(storage, { who, walkthrough, tab, now = Date.now }) {
    this.storage = storage;
    this.prefix = `${PREFIX}:${who}:${walkthrough}:`;
    this.tab = tab;
    this.now = now;
  }

  /** Keeps what is not saved of `subject` ("head" or a step's id), and nothing when all is. */
  put(name, revision, subject) {
    const key = `${this.prefix}${name}:${this.tab}`;
    try {
      if (!some(subject, isDirty)) return this.storage.removeItem(key);
      const dirty = Object.entries(subject.fields).filter(([, it]) => isDirty(it));
      const fields = Object.fromEntries(dirty.map(([own, it]) => [own, { base: it.base, text: it.text }]));
      this.storage.setItem(key, JSON.stringify({ revision, at: this.now(), title: subject.fields.title.text, fields }));
    } catch {
      // Full, or forbidden by the browser: saving goes on without.
    }
  }

  /** What was kept, oldest first: `{key, name, revision, at, title, fields}`. What is too old or unreadable is thrown away. */
  all() {
    const found = [];
    for (const key of this.keys()) {
      try {
        const kept = JSON.parse(this.storage.getItem(key));
        if (this.now() - kept.at > LONGEST_MS || typeof kept.fields !== "object") this.storage.removeItem(key);
        else found.push({ ...kept, key, name: key.slice(this.prefix.length).split(":")[0] });
      } catch {
        this.storage.removeItem(key);
      }
    }
    return found.sort((a, b) => a.at - b.at);
  }

  drop(key) {
    try {
      this.storage.removeItem(key);
    } catch {
      // As above.
    }
  }

  keys() {
    try {
      const all = Array.from({ length: this.storage.length }, (_, index) => this.storage.key(index));
      return all.filter((key) => key?.startsWith(this.prefix));
    } catch {
      return [];
    }
  }
}

/**
 * Puts what was kept back into the boxes of `subject`, as if it had just been typed on top of what it was typed on: what
 * somebody else has changed since is a conflict. Gives whether anything was.
 */
export function restore(subject, fields) {
  let restored = false;
  for (const [name, kept] of Object.entries(fields)) {
    const it = subject.fields[name];
    if (!it || typeof kept?.text !== "string" || typeof kept.base !== "string" || it.base === kept.text) continue;
    const current = it.base;
    Object.assign(it, field(kept.base));
    edit(it, kept.text);
    receive(it, current, false);
    restored ||= isDirty(it);
  }
  return restored;
}
