// The editor's model of a walkthrough: for each field, the server's text, the text in the input, and the concurrent
// change by another user. Uses neither the DOM nor the network. docs/console.md describes the invariants;
// e2e/console/unit tests them.

/** The fields of a step. */
export const STEP_FIELDS = [
  "title", "section_title", "content", "introduction_for_agent", "context_for_agent", "operations_for_agent",
];
/** The fields of the walkthrough itself ("head"). */
export const HEAD_FIELDS = ["title", "description", "type", "estimated_duration_minutes", "tags"];

/**
 * Creates a field. `base`: the server's text. `text`: the text in the input. `settled`: the sent text that the server
 * stored as `base` (it trims titles). `theirs`: another user's change since `base` that could not be shown yet.
 * `refused`: a rejected text with the reason.
 */
export function field(value) {
  return { base: value, text: value, settled: value, theirs: null, refused: null };
}

function reset(it, value) {
  Object.assign(it, field(value));
}

/** Whether the field has unsaved changes. */
export function isDirty(it) {
  return it.text !== it.settled;
}

/** Whether two users have changed the same field. */
export function isConflict(it) {
  return it.theirs !== null && isDirty(it);
}

/** Whether the field can be saved now. A conflict must be resolved first, and a rejected text must be edited first. */
export function isSendable(it) {
  return isDirty(it) && it.theirs === null && it.refused?.text !== it.text;
}

/** Applies the user's edit to the field. */
export function edit(it, text) {
  it.text = text;
  if (it.refused && it.refused.text !== text) it.refused = null;
}

/** Applies `value` from the server. If `focused`, the input is not changed because the user is in it. */
export function receive(it, value, focused) {
  if (value === it.base) {
    it.theirs = null;
  } else if (isDirty(it)) {
    if (value === it.text) reset(it, value);
    else it.theirs = value;
  } else if (focused) {
    it.theirs = value;
  } else {
    reset(it, value);
  }
}

/** Records that the server accepted `sent` and stored it as `value`, which may be trimmed. The input is not changed. */
export function markSaved(it, sent, value) {
  it.base = value;
  it.settled = sent;
  it.refused = null;
}

/** Called when the input loses the focus. Shows another user's change, but never overwrites unsaved text. */
export function leave(it) {
  if (isDirty(it) || it.theirs === null) return;
  reset(it, it.theirs);
}

/** Resolves a conflict with `text`. */
export function resolve(it, text) {
  const theirs = it.theirs;
  if (theirs === null) return;
  if (text === theirs) return reset(it, theirs);
  Object.assign(it, { base: theirs, settled: theirs, text, theirs: null, refused: null });
}

/** Converts a value of the API to the text of an input. */
export function toText(name, value) {
  if (name === "tags") return (value ?? []).join(", ");
  return value === null || value === undefined ? "" : String(value);
}

/** Converts the text of an input to a value of the API. */
export function toValue(name, text) {
  if (name === "tags") return text.split(",").map((tag) => tag.trim()).filter((tag) => tag !== "");
  if (name === "estimated_duration_minutes") return text.trim() === "" ? null : Number(text);
  const required = name === "title" || name === "content" || name === "description" || name === "type";
  return text === "" && !required ? null : text;
}

function fieldsOf(names, dto) {
  return Object.fromEntries(names.map((name) => [name, field(toText(name, dto[name]))]));
}

/** Creates a step from the response of the server. */
export function step(dto) {
  return { id: dto.id, key: dto.key ?? null, metadata: dto.metadata ?? {}, gone: false, fields: fieldsOf(STEP_FIELDS, dto) };
}

/** Creates the model from the response of `GET /walkthroughs/{id}`. */
export function model(dto) {
  return {
    id: dto.id,
    revision: dto.revision,
    info: info(dto),
    head: { fields: fieldsOf(HEAD_FIELDS, dto) },
    steps: (dto.steps ?? []).map(step),
  };
}

function info({ slug, state, current_version, has_unpublished_changes, updated_at }) {
  return { slug, state, current_version, has_unpublished_changes, updated_at };
}

/** Whether any field of `subject` (a step or the head) passes `test`. */
export function some(subject, test) {
  return Object.values(subject.fields).some(test);
}

/** Returns the head and all steps. */
export function subjects(it) {
  return [it.head, ...it.steps];
}

/** Whether any change is unsaved. */
export function isUnsaved(it) {
  return subjects(it).some((subject) => some(subject, isDirty));
}

/** Returns the unsaved fields of `subject` as a request body with the sent texts, or null if there are none. */
export function changes(subject) {
  const all = Object.entries(subject.fields).filter(([, it]) => isSendable(it));
  if (all.length === 0 || subject.gone) return null;
  return {
    body: Object.fromEntries(all.map(([name, it]) => [name, toValue(name, it.text)])),
    sent: Object.fromEntries(all.map(([name, it]) => [name, it.text])),
  };
}

/** Records that the server accepted `sent` and responded with `dto`. */
export function saved(subject, sent, dto, focus = () => false) {
  for (const [name, it] of Object.entries(subject.fields)) {
    const value = toText(name, dto[name]);
    if (name in sent) markSaved(it, sent[name], value);
    else receive(it, value, focus(subject, name));
  }
}

/**
 * Merges `dto` from the server. Returns the changes to announce: `added` and `changed` step IDs, `removed` steps, and
 * whether steps were `moved`.
 * A deleted step is kept while it has unsaved changes.
 */
export function merge(it, dto, focus = () => false) {
  const report = { added: [], changed: [], removed: [], moved: false };
  it.revision = dto.revision;
  it.info = info(dto);
  for (const [name, own] of Object.entries(it.head.fields)) receive(own, toText(name, dto[name]), focus(it.head, name));
  const mine = new Map(it.steps.map((own) => [own.id, own]));
  const before = it.steps.filter((own) => !own.gone).map((own) => own.id);
  const steps = dto.steps.map((theirs) => {
    const own = mine.get(theirs.id);
    if (!own) {
      report.added.push(theirs.id);
      return step(theirs);
    }
    mine.delete(theirs.id);
    own.gone = false;
    own.key = theirs.key ?? null;
    own.metadata = theirs.metadata ?? {};
    for (const [name, text] of Object.entries(own.fields)) {
      const value = toText(name, theirs[name]);
      if (value !== text.base && !report.changed.includes(own.id)) report.changed.push(own.id);
      receive(text, value, focus(own, name));
    }
    return own;
  });
  for (const own of mine.values()) {
    if (!own.gone) report.removed.push(own);
    if (!some(own, isDirty)) continue;
    own.gone = true;
    // Keeps its position: after the closest earlier step that still exists.
    const at = it.steps.indexOf(own);
    const previous = it.steps.slice(0, at).reverse().find((other) => steps.includes(other));
    steps.splice(previous ? steps.indexOf(previous) + 1 : 0, 0, own);
  }
  const after = steps.filter((own) => before.includes(own.id) && !own.gone).map((own) => own.id);
  report.moved = before.filter((id) => after.includes(id)).join() !== after.join();
  it.steps = steps;
  return report;
}

/** Converts a step to the API's representation. */
export function toStep(own) {
  const texts = Object.entries(own.fields).map(([name, it]) => [name, toValue(name, it.text)]);
  return { id: own.id, key: own.key, metadata: own.metadata, ...Object.fromEntries(texts) };
}

/** Returns the ID of the step before `id` among the steps that the server has, or null for the first. */
export function previous(it, id) {
  const steps = it.steps.filter((own) => !own.gone || own.id === id);
  const at = steps.findIndex((own) => own.id === id);
  return at > 0 ? steps[at - 1].id : null;
}

/** Moves the step `id` after the step `after` (null: first). */
export function moveAfter(it, id, after) {
  const own = it.steps.find((other) => other.id === id);
  const rest = it.steps.filter((other) => other !== own);
  if (!own || id === after) return;
  const at = after === null ? 0 : rest.findIndex((other) => other.id === after) + 1;
  rest.splice(at, 0, own);
  it.steps = rest;
}

/**
 * Returns the section of a step that is moved between two others: its own if a neighbour has the same section, else the
 * section of a neighbour.
 */
export function sectionBetween(own, before, after) {
  const neighbours = [before, after].filter((section) => section !== undefined);
  if (neighbours.length === 0 || neighbours.includes(own)) return own;
  return neighbours[0];
}

/** Returns the names of empty fields that are required for publishing. The core has the same rule (`missing_field`). */
export function missing(kind, own) {
  const required = ["content"];
  if (kind === "troubleshooting" || kind === "integration") required.push("context_for_agent");
  if (kind === "installer" || kind === "integration") required.push("operations_for_agent");
  return required.filter((name) => own.fields[name].text.trim() === "");
}
