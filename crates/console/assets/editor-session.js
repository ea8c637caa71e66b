// An editing session: saves changes to the server and receives the changes of other users. Does not use the DOM: views
// listen with `on` and read `model`. The rules are in editor-model.js.

import { DraftStore, restore } from "./editor-keep.js";
import * as m from "./editor-model.js";
import { ConnectionLost, Queue, SignedOut } from "./editor-queue.js";
import { Undo } from "./editor-undo.js";
import { plainMessage } from "./messages.js";

const SAVE_AFTER_MS = 600;
/** Continuous typing is saved after this time at the latest. */
const SAVE_WITHIN_MS = 3_000;
const KEEP_AFTER_MS = 150;
/** The maximum request size that browsers send for a closing page, in bytes. */
const MAX_KEEPALIVE = 60_000;
const MAX_CONFLICT_RETRIES = 8;

/** A request that the server has rejected. */
export class Refused extends Error {
  constructor(status, problem) {
    super(plainMessage(problem?.detail ?? "The server rejected the change.", problem?.field));
    this.status = status;
    this.problem = problem ?? {};
  }
}

export class Session {
  /**
   * `api`: see console.js. `focused(subject, name)`: returns whether that field has the focus. `key()`: returns a new
   * Idempotency-Key.
   */
  constructor({ id, api, storage, who, focused = () => false, key, now = Date.now, timer = globalThis }) {
    Object.assign(this, { id, api, focused, key, now, timer });
    this.path = `/walkthroughs/${encodeURIComponent(id)}`;
    this.keeper = new DraftStore(storage, { who, walkthrough: id, tab: key(), now });
    this.undoing = new Undo(storage, { who, walkthrough: id, now });
    this.queue = new Queue({ timer, onChange: () => this.tell("status") });
    this.listeners = [];
    this.model = null;
    this.etag = null;
    this.savedAt = null;
    this.deleted = false;
    this.unloading = false;
    this.firstUnsaved = null;
    this.toKeep = new Set();
    this.moves = [];
  }

  on(listener) {
    this.listeners.push(listener);
  }

  tell(kind, detail) {
    for (const listener of this.listeners) listener(kind, detail);
  }

  step(id) {
    return this.model?.steps.find((own) => own.id === id);
  }

  /** The visible steps. */
  get steps() {
    return this.model?.steps.filter((own) => !own.leaving) ?? [];
  }

  /** The save status. */
  get state() {
    if (this.deleted) return "deleted";
    if (!this.model) return this.queue.trouble ?? "loading";
    const some = (test) => m.subjects(this.model).some((subject) => !subject.leaving && m.some(subject, test));
    if (this.queue.trouble) return this.queue.trouble;
    if (some(m.isConflict) || this.model.steps.some((own) => own.gone)) return "conflict";
    if (some((it) => it.refused !== null && m.isDirty(it))) return "refused";
    if (this.structural > 0 || m.isUnsaved(this.model)) return "saving";
    return "saved";
  }

  get isUnsaved() {
    return this.model !== null && !this.deleted && (this.structural > 0 || m.isUnsaved(this.model));
  }

  structural = 0;

  // Requests

  async call(method, path, options = {}) {
    let response;
    const size = options.body === undefined ? 0 : JSON.stringify(options.body).length;
    const keepalive = this.unloading && size < MAX_KEEPALIVE;
    try {
      response = await this.api(method, path, { ...options, keepalive, signal: AbortSignal.timeout(20_000) });
    } catch {
      throw new ConnectionLost();
    }
    if (response.status === 401) throw new SignedOut("The session has expired.");
    if (response.status >= 500 || response.status === 429 || response.status === 408) {
      throw new ConnectionLost("The server does not respond.", 1_000 * (Number(response.headers.get("Retry-After")) || 0));
    }
    let body = null;
    try {
      if (response.status !== 204 && response.status !== 304) body = await response.json();
    } catch {
      throw new ConnectionLost("The response was incomplete.");
    }
    return { status: response.status, body, etag: response.headers.get("ETag") };
  }

  /** Like `call`, but throws `Refused` for an error status. */
  async request(method, path, options) {
    const response = await this.call(method, path, options);
    if (response.status >= 400) throw new Refused(response.status, response.body);
    return response;
  }

  /** Loads the walkthrough and restores unsaved text kept in this browser. */
  async load() {
    const { body, etag } = await this.queue.push(() => this.request("GET", this.path));
    this.model = m.model(body);
    this.etag = etag;
    const restored = this.restoreKept();
    this.tell("model");
    if (restored.length > 0) {
      this.tell("notice", { text: `Unsaved text was restored: ${restored.join(", ")}.` });
      this.schedule(0);
    }
  }

  restoreKept() {
    const restored = [];
    for (const kept of this.keeper.all()) {
      let subject = kept.name === "head" ? this.model.head : this.step(kept.name);
      if (!subject) {
        // The step has been deleted; only its stored text is left.
        subject = { ...m.step({ id: kept.name, title: kept.title }), gone: true };
        if (restore(subject, kept.fields)) this.model.steps.push(subject);
      } else if (!restore(subject, kept.fields)) {
        subject = null;
      }
      this.keeper.drop(kept.key);
      if (!subject) continue;
      this.keep(subject);
      restored.push(kept.name === "head" ? "the details" : `“${subject.fields.title.text}”`);
    }
    return [...new Set(restored)];
  }

  // Typing

  edit(subject, name, text) {
    this.undoing.record(subject.id ?? "head", name, subject.fields[name].text, text);
    this.write(subject, name, text);
  }

  /** Like `edit`, but not recorded for undo. */
  write(subject, name, text) {
    m.edit(subject.fields[name], text);
    this.keepSoon(subject);
    this.schedule();
    this.tell("typed", subject);
  }

  leave(subject, name) {
    m.leave(subject.fields[name]);
    this.flush();
    this.tell("model");
  }

  resolve(subject, name, text) {
    m.resolve(subject.fields[name], text);
    this.keep(subject);
    this.tell("model");
    this.flush();
  }

  keepSoon(subject) {
    this.toKeep.add(subject);
    this.keepTimer ??= this.timer.setTimeout(() => this.keepNow(), KEEP_AFTER_MS);
  }

  keepNow() {
    this.timer.clearTimeout(this.keepTimer);
    this.keepTimer = null;
    for (const subject of this.toKeep) this.keep(subject);
    this.toKeep.clear();
  }

  keep(subject) {
    this.keeper.put(subject.id ?? "head", this.model.revision, subject);
  }

  schedule(ms = SAVE_AFTER_MS) {
    this.firstUnsaved ??= this.now();
    const left = Math.max(0, this.firstUnsaved + SAVE_WITHIN_MS - this.now());
    this.timer.clearTimeout(this.saveTimer);
    this.saveTimer = this.timer.setTimeout(() => this.flush(), Math.min(ms, left));
    this.tell("status");
  }

  /** Saves all pending changes immediately. */
  flush() {
    this.timer.clearTimeout(this.saveTimer);
    this.firstUnsaved = null;
    if (!this.model || this.deleted || !m.subjects(this.model).some((subject) => m.changes(subject))) {
      return this.queue.idle ? Promise.resolve() : this.queue.push(async () => {});
    }
    return this.queue.push(() => this.save(), "save").catch((error) => this.tell("problem", error.message));
  }

  /** Called when the page is hidden or closed. */
  suspend() {
    this.keepNow();
    this.unloading = true;
    this.flush();
  }

  resume() {
    this.unloading = false;
    // Publishing does not change the draft, but its result must be shown.
    this.etag = null;
    this.queue.wake();
  }

  async save() {
    for (const subject of m.subjects(this.model)) await this.saveOne(subject);
    if (m.subjects(this.model).some((subject) => m.changes(subject))) this.schedule();
  }

  async saveOne(subject) {
    for (let n = 0; n < MAX_CONFLICT_RETRIES; n += 1) {
      const change = subject.leaving ? null : m.changes(subject);
      if (!change || this.deleted) return;
      const path = subject === this.model.head ? this.path : `${this.path}/steps/${subject.id}`;
      const response = await this.call("PATCH", path, { body: change.body, ifMatch: `"${this.model.revision}"` });
      if (response.status < 300) return this.saved(subject, change, response);
      if (response.status === 412 || response.status === 404) await this.refresh();
      else return this.refused(subject, change, response.body);
    }
  }

  saved(subject, change, { body }) {
    this.model.revision = body.revision;
    // The change was based on the model's revision, so the model is complete and the next poll need not load it again.
    this.etag = `"${body.revision}"`;
    m.saved(subject, change.sent, body.step ?? body, this.focused);
    if (this.model.info.current_version !== null) this.model.info.has_unpublished_changes = true;
    this.savedAt = this.now();
    this.keep(subject);
    this.tell("saved", subject);
  }

  refused(subject, { sent }, problem) {
    const message = plainMessage(problem?.detail ?? "The server rejected the change.", problem?.field);
    const names = problem?.field in sent ? [problem.field] : Object.keys(sent);
    for (const name of names) subject.fields[name].refused = { text: sent[name], message };
    this.tell("model");
  }

  // Changes by others

  async poll() {
    if (!this.model || this.deleted || !this.queue.idle) return;
    await this.queue.push(() => this.refresh(), "poll").catch((error) => this.tell("problem", error.message));
  }

  async refresh() {
    const headers = this.etag ? { "If-None-Match": this.etag } : {};
    const response = await this.call("GET", this.path, { headers });
    if (response.status === 304) return;
    if (response.status === 404) {
      this.deleted = true;
      this.tell("model");
      return;
    }
    if (response.status >= 400) throw new Refused(response.status, response.body);
    this.etag = response.etag;
    const report = m.merge(this.model, response.body, this.focused);
    // Reapplies moves that the server has not processed yet.
    for (const { id, after } of this.moves) m.moveAfter(this.model, id, after);
    for (const subject of m.subjects(this.model)) this.keep(subject);
    this.tell("model");
    this.tell("others", report);
    // Saves pending changes, which are now based on the current revision.
    if (m.subjects(this.model).some((subject) => m.changes(subject))) this.schedule();
  }

  // Step operations

  /** Runs an operation on the list of steps. Returns its result, or null if it failed. */
  async run(task) {
    this.structural += 1;
    this.tell("status");
    try {
      const result = await this.queue.push(task);
      this.savedAt = this.now();
      return result;
    } catch (error) {
      this.tell("problem", error.message);
      // Reverts the optimistic update, even if the draft has not changed.
      this.etag = null;
      await this.queue.push(() => this.refresh()).catch(() => {});
      return null;
    } finally {
      this.structural -= 1;
      this.tell("model");
    }
  }

  /** Applies the revision of a response. Reloads if another user has made a change in between. */
  async applyRevision(revision) {
    if (this.model.info.current_version !== null) this.model.info.has_unpublished_changes = true;
    if (revision > this.model.revision + 1) {
      this.etag = null;
      await this.refresh();
    } else {
      this.model.revision = Math.max(revision, this.model.revision);
      this.etag = `"${this.model.revision}"`;
    }
  }

  async inserted({ body }, after) {
    if (body.revision <= this.model.revision + 1 && !this.step(body.step.id)) {
      this.model.steps.push(m.step(body.step));
      m.moveAfter(this.model, body.step.id, after ?? m.previous(this.model, body.step.id));
    }
    await this.applyRevision(body.revision);
    return body.step.id;
  }

  /** Adds a step after the step `after`, or at the end. Returns its ID. */
  add(after, section) {
    const headers = { "Idempotency-Key": this.key() };
    return this.run(async () => {
      const place = after && this.step(after) && !this.step(after).gone ? { after } : {};
      const body = { title: "New step", section_title: section || null, content: "", ...place };
      return this.inserted(await this.request("POST", `${this.path}/steps`, { body, headers }), place.after);
    });
  }

  duplicate(id) {
    this.flush();
    const headers = { "Idempotency-Key": this.key() };
    const path = `${this.path}/steps/${id}/duplicate`;
    return this.run(async () => this.inserted(await this.request("POST", path, { headers }), id));
  }

  /** Moves a step after another one (null: first) and into the section at that position. */
  move(id, after) {
    if (m.previous(this.model, id) === after || id === after) return Promise.resolve();
    m.moveAfter(this.model, id, after);
    const own = this.step(id);
    const at = this.model.steps.indexOf(own);
    const section = (other) => other?.fields.section_title.text;
    const before = section(this.model.steps[at - 1]);
    const target = m.sectionBetween(section(own), before, section(this.model.steps[at + 1]));
    this.tell("model");
    const headers = { "Idempotency-Key": this.key() };
    const move = { id, after };
    this.moves.push(move);
    const moved = this.run(async () => {
      try {
        const { body } = await this.request("POST", `${this.path}/steps/${id}/move`, { body: { after }, headers });
        await this.applyRevision(body.revision);
      } catch (error) {
        if (error instanceof Refused) this.moves.splice(this.moves.indexOf(move), 1);
        throw error;
      }
      this.moves.splice(this.moves.indexOf(move), 1);
    });
    if (target !== section(own)) this.edit(own, "section_title", target);
    return moved;
  }

  /** Deletes a step. Returns the data needed to restore it, or null if it was not deleted. */
  remove(id) {
    const own = this.step(id);
    const after = m.previous(this.model, id);
    const seen = JSON.stringify(Object.values(own.fields).map((it) => it.base));
    own.leaving = true;
    this.tell("model");
    return this.run(async () => {
      try {
        for (let n = 0; n < MAX_CONFLICT_RETRIES; n += 1) {
          const ifMatch = `"${this.model.revision}"`;
          const response = await this.call("DELETE", `${this.path}/steps/${id}`, { ifMatch });
          if (response.status === 404) await this.refresh();
          if (response.status < 300 || response.status === 404) return await this.removed(own, after, response);
          if (response.status !== 412) throw new Refused(response.status, response.body);
          await this.refresh();
          const changed = Object.values(own.fields).some((it) => it.theirs !== null);
          if (changed || seen !== JSON.stringify(Object.values(own.fields).map((it) => it.base))) {
            const title = own.fields.title.text;
            throw new Error(`Another user has just changed “${title}”, so it was not deleted. Review the change first.`);
          }
        }
        throw new Error("Other users are changing this walkthrough. Try again in a moment.");
      } finally {
        own.leaving = false;
      }
    });
  }

  async removed(own, after, { status, body }) {
    this.model.steps = this.model.steps.filter((other) => other !== own);
    this.keeper.drop(`${this.keeper.prefix}${own.id}:${this.keeper.tab}`);
    if (status < 300) await this.applyRevision(body.revision);
    return { step: m.toStep(own), after };
  }

  /** Restores a deleted step with its ID and the given content. */
  restoreStep({ step, after }) {
    const headers = { "Idempotency-Key": this.key() };
    return this.run(async () => {
      const place = after === null || this.step(after) ? { after } : {};
      const response = await this.request("POST", `${this.path}/steps/${step.id}/restore`, { body: { step, ...place }, headers });
      const existing = this.step(step.id);
      if (existing) {
        m.saved(existing, Object.fromEntries(Object.entries(existing.fields).map(([name, it]) => [name, it.text])), response.body.step);
        Object.assign(existing, { gone: false, leaving: false });
        this.keep(existing);
        await this.applyRevision(response.body.revision);
        this.etag = null;
        await this.refresh();
        return step.id;
      }
      const id = await this.inserted(response, place.after === null ? null : place.after);
      if (place.after === null) m.moveAfter(this.model, id, null);
      return id;
    });
  }

  /** Undoes ("undo") or redoes ("redo") the last typed change. Returns the change, or null. */
  rewind(direction) {
    const subject = (id) => (id === "head" ? this.model.head : this.step(id));
    const text = (id, name) => subject(id)?.fields[name]?.text;
    const change = this.undoing[direction](text, (id, name, target) => this.write(subject(id), name, target));
    if (change) this.tell("model");
    return change;
  }

  /** Returns the deleted steps of the draft that can be restored. */
  async deletedSteps() {
    const { body } = await this.queue.push(() => this.request("GET", `${this.path}/deleted-steps`));
    return body.items;
  }

  /** Restores a step to a revision. Returns its ID, or null on failure. */
  restoreRevision(id, number) {
    const headers = { "Idempotency-Key": this.key() };
    return this.run(async () => {
      const ifMatch = `"${this.model.revision}"`;
      const response = await this.call("POST", `${this.path}/steps/${id}/revisions/${number}/restore`, { headers, ifMatch });
      if (response.status === 412) {
        await this.refresh();
        throw new Error("Another user has just changed this walkthrough, so nothing was restored. Review the change, then restore again.");
      }
      if (response.status >= 400) throw new Refused(response.status, response.body);
      const own = this.step(id);
      // Replaces unsaved text, because the user requested the restored text.
      if (own) Object.assign(own, m.step(response.body.step), { gone: false });
      this.etag = null;
      await this.refresh();
      return id;
    });
  }

  /** Discards a step that another user has deleted, including its unsaved text. */
  discardDeleted(id) {
    const own = this.step(id);
    this.model.steps = this.model.steps.filter((other) => other !== own);
    this.keeper.drop(`${this.keeper.prefix}${id}:${this.keeper.tab}`);
    this.tell("model");
  }

  /** Sets the section of the steps `ids`. */
  rename(ids, section) {
    for (const id of ids) {
      const own = this.step(id);
      if (own) this.edit(own, "section_title", section);
    }
    return this.flush();
  }
}
