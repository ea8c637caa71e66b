// Undo and redo of typed changes, also after a reload: a bounded list of changes per user and walkthrough in this
// browser. Does not use the DOM. The server's revision history (editor-history.js) goes back further.

const PREFIX = "waypost.undo:";
const MAX_CHANGES = 100;
const MAX_CHARS = 400_000;
const MERGE_WINDOW_MS = 1_500;
const MAX_AGE_MS = 7 * 24 * 60 * 60 * 1_000;

/** Deletes the stored changes of all users. Called on sign-out. */
export function forgetUndo(storage) {
  try {
    const keys = Array.from({ length: storage.length }, (_, index) => storage.key(index));
    for (const key of keys) if (key?.startsWith(PREFIX)) storage.removeItem(key);
  } catch {
    // Storage is not available, so nothing was stored.
  }
}

/** The changes of the user `who` in `walkthrough`. `storage`: localStorage or compatible. */
export class Undo {
  constructor(storage, { who, walkthrough, now = Date.now }) {
    Object.assign(this, { storage, now, key: `${PREFIX}${who}:${walkthrough}`, done: [], undone: [] });
    try {
      const { done, undone } = JSON.parse(storage.getItem(this.key)) ?? {};
      const recent = (list) => (Array.isArray(list) ? list : []).filter((it) => now() - it.at < MAX_AGE_MS);
      [this.done, this.undone] = [recent(done), recent(undone)];
    } catch {
      // Malformed, or storage is not available.
    }
  }

  /** Records a change of the field `name` of `id` (a step ID, or "head"). Continuous typing is one change. */
  record(id, name, before, after) {
    if (before === after) return;
    const last = this.done.at(-1);
    const continues = last?.id === id && last.name === name && last.after === before && this.now() - last.at < MERGE_WINDOW_MS;
    if (continues && this.undone.length === 0) Object.assign(last, { after, at: this.now() });
    else this.done.push({ id, name, before, after, at: this.now() });
    this.undone = [];
    this.keep();
  }

  /**
   * Undoes the last change. `text(id, name)` returns the current text, or undefined if the field does not exist; `set`
   * changes it. Skips changes of fields that no longer exist or that others have changed since. Returns the change, or
   * null.
   */
  undo(text, set) {
    return this.move(this.done, this.undone, ["after", "before"], text, set);
  }

  /** Redoes the last undone change; see `undo`. */
  redo(text, set) {
    return this.move(this.undone, this.done, ["before", "after"], text, set);
  }

  move(from, to, [current, target], text, set) {
    for (let change = from.pop(); change; change = from.pop()) {
      if (text(change.id, change.name) !== change[current]) continue;
      to.push({ ...change, at: this.now() - MERGE_WINDOW_MS });
      set(change.id, change.name, change[target]);
      this.keep();
      return change;
    }
    this.keep();
    return null;
  }

  keep() {
    const size = () => [...this.done, ...this.undone].reduce((sum, it) => sum + it.before.length + it.after.length, 0);
    while (this.done.length > MAX_CHANGES || (this.done.length > 0 && size() > MAX_CHARS)) this.done.shift();
    if (size() > MAX_CHARS) this.undone = [];
    try {
      if (this.done.length + this.undone.length === 0) this.storage.removeItem(this.key);
      else this.storage.setItem(this.key, JSON.stringify({ done: this.done, undone: this.undone }));
    } catch {
      // Storage is full or not available; undo works until the page is closed.
    }
  }
}
