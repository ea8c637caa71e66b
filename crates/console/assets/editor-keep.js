// Keeps unsaved text in this browser until it is saved, so that a crash, a reload or a lost connection loses nothing.

import { edit, field, isDirty, receive, some } from "./editor-model.js";

const PREFIX = "waypost.text";
const MAX_AGE_MS = 30 * 24 * 60 * 60 * 1_000;

/** `storage`: localStorage or compatible. `who`: the user. `tab`: the ID of this tab. */
export class DraftStore {
  constructor(storage, { who, walkthrough, tab, now = Date.now }) {
    this.storage = storage;
    this.prefix = `${PREFIX}:${who}:${walkthrough}:`;
    this.tab = tab;
    this.now = now;
  }

  /** Stores the unsaved fields of `subject` ("head" or a step's ID), or removes the entry if all are saved. */
  put(name, revision, subject) {
    const key = `${this.prefix}${name}:${this.tab}`;
    try {
      if (!some(subject, isDirty)) return this.storage.removeItem(key);
      const dirty = Object.entries(subject.fields).filter(([, it]) => isDirty(it));
      const fields = Object.fromEntries(dirty.map(([own, it]) => [own, { base: it.base, text: it.text }]));
      this.storage.setItem(key, JSON.stringify({ revision, at: this.now(), title: subject.fields.title.text, fields }));
    } catch {
      // Storage is full or not available; saving to the server continues.
    }
  }

  /**
   * Returns the stored entries, oldest first: `{key, name, revision, at, title, fields}`. Removes expired and malformed
   * entries.
   */
  all() {
    const found = [];
    for (const key of this.keys()) {
      try {
        const kept = JSON.parse(this.storage.getItem(key));
        if (this.now() - kept.at > MAX_AGE_MS || typeof kept.fields !== "object") this.storage.removeItem(key);
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
      // Storage is not available.
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
 * Restores stored text in the fields of `subject`, as if it had just been typed on its original base: a change that
 * another user has made since then is a conflict. Returns whether anything was restored.
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
