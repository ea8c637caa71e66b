// What was typed can be undone, also after the page was loaded again: a bounded list of changes in this browser, for each
// user and walkthrough. Pure: no page. The server's history (editor-history.js) goes further back.

const PREFIX = "waypost.undo:";
const MOST_CHANGES = 100;
const MOST_CHARS = 400_000;
const TOGETHER_MS = 1_500;
const LONGEST_MS = 7 * 24 * 60 * 60 * 1_000;

/** Forgets the changes of all users: somebody signs out of this browser. */
export function forgetUndo(storage) {
  try {
    const keys = Array.from({ length: storage.length }, (_, index) => storage.key(index));
    for (const key of keys) if (key?.startsWith(PREFIX)) storage.removeItem(key);
  } catch {
    // Forbidden by the browser: then nothing was kept either.
  }
}

/** The changes of `who` in `walkthrough`; `storage` as localStorage. */
export class Undo {
  constructor(storage, { who, walkthrough, now = Date.now }) {
    Object.assign(this, { storage, now, key: `${PREFIX}${who}:${walkthrough}`, done: [], undone: [] });
    try {
      const { done, undone } = JSON.parse(storage.getItem(this.key)) ?? {};
      const recent = (list) => (Array.isArray(list) ? list : []).filter((it) => now() - it.at < LONGEST_MS);
      [this.done, this.undone] = [recent(done), recent(undone)];
    } catch {
      // Not ours, or the browser keeps nothing.
    }
  }

  /** Somebody changed the text `name` of the subject `id` (a step, or "head"). What is typed in one go is one change. */
  record(id, name, before, after) {
    if (before === after) return;
    const last = this.done.at(-1);
    const goesOn = last?.id === id && last.name === name && last.after === before && this.now() - last.at < TOGETHER_MS;
    if (goesOn && this.undone.length === 0) Object.assign(last, { after, at: this.now() });
    else this.done.push({ id, name, before, after, at: this.now() });
    this.undone = [];
    this.keep();
  }

  /**
   * The last change is taken back. `text(id, name)` is the present text, or undefined if there is none; `set` gives it
   * another one. Changes of texts that are gone, or that others changed since, are left out. Gives the change.
   */
  undo(text, set) {
    return this.move(this.done, this.undone, ["after", "before"], text, set);
  }

  /** As `undo`, the other way round. */
  redo(text, set) {
    return this.move(this.undone, this.done, ["before", "after"], text, set);
  }

  move(from, to, [present, wanted], text, set) {
    for (let change = from.pop(); change; change = from.pop()) {
      if (text(change.id, change.name) !== change[present]) continue;
      to.push({ ...change, at: this.now() - TOGETHER_MS });
      set(change.id, change.name, change[wanted]);
      this.keep();
      return change;
    }
    this.keep();
    return null;
  }

  keep() {
    const size = () => [...this.done, ...this.undone].reduce((sum, it) => sum + it.before.length + it.after.length, 0);
    while (this.done.length > MOST_CHANGES || (this.done.length > 0 && size() > MOST_CHARS)) this.done.shift();
    if (size() > MOST_CHARS) this.undone = [];
    try {
      if (this.done.length + this.undone.length === 0) this.storage.removeItem(this.key);
      else this.storage.setItem(this.key, JSON.stringify({ done: this.done, undone: this.undone }));
    } catch {
      // Full, or forbidden by the browser: undo works until the page is left.
    }
  }
}
