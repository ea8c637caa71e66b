// What the editor knows of a walkthrough: for each text what the server has, what stands in the box, and what somebody else
// has written meanwhile. Pure: no page, no network. docs/console.md has the invariants; e2e/console/unit tests them.

/** The texts of a step. */
export const STEP_FIELDS = [
  "title", "section_title", "content", "introduction_for_agent", "context_for_agent", "operations_for_agent",
];
/** The texts of the head. */
export const HEAD_FIELDS = ["title", "description", "type", "estimated_duration_minutes", "tags"];

/**
 * A text. `base`: what the server has. `text`: what stands in the box. `settled`: the text that the server took as `base`
 * (it takes blanks around a title away). `theirs`: what somebody else made of it since `base`, while it could not be shown. `refused`: a text
 * that the server does not take, and why.
 */
export function field(value) {
  return { base: value, text: value, settled: value, theirs: null, refused: null };
}

function reset(it, value) {
  Object.assign(it, field(value));
}

/** Whether the box holds what the server does not have. */
export function isDirty(it) {
  return it.text !== it.settled;
}

/** Whether two people have changed the same text. */
export function isConflict(it) {
  return it.theirs !== null && isDirty(it);
}

/** Whether the text shall be sent now. What is in conflict waits for a person; what was refused, for another text. */
export function isSendable(it) {
  return isDirty(it) && it.theirs === null && it.refused?.text !== it.text;
}

/** Somebody types. */
export function edit(it, text) {
  it.text = text;
  if (it.refused && it.refused.text !== text) it.refused = null;
}

/** The server has `value` now. With `focused`, the box is not touched: a person is in it. */
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

/** The server took `sent` and has `value` now (without blanks around a title, say). The box keeps what was typed. */
export function taken(it, sent, value) {
  it.base = value;
  it.settled = sent;
  it.refused = null;
}

/** Nobody is in the box any more: what somebody else wrote meanwhile is shown. What was typed here is never rewritten. */
export function leave(it) {
  if (isDirty(it) || it.theirs === null) return;
  reset(it, it.theirs);
}

/** A person decides a conflict: `text` it shall be. */
export function resolve(it, text) {
  const theirs = it.theirs;
  if (theirs === null) return;
  if (text === theirs) return reset(it, theirs);
  Object.assign(it, { base: theirs, settled: theirs, text, theirs: null, refused: null });
}

/** What the API says as what stands in boxes. */
export function toText(name, value) {
  if (name === "tags") return (value ?? []).join(", ");
  return value === null || value === undefined ? "" : String(value);
}

/** What stands in a box as what the API takes. */
export function toValue(name, text) {
  if (name === "tags") return text.split(",").map((tag) => tag.trim()).filter((tag) => tag !== "");
  if (name === "estimated_duration_minutes") return text.trim() === "" ? null : Number(text);
  const required = name === "title" || name === "content" || name === "description" || name === "type";
  return text === "" && !required ? null : text;
}

function fieldsOf(names, dto) {
  return Object.fromEntries(names.map((name) => [name, field(toText(name, dto[name]))]));
}

/** A step as the server has it. */
export function step(dto) {
  return { id: dto.id, key: dto.key ?? null, metadata: dto.metadata ?? {}, gone: false, fields: fieldsOf(STEP_FIELDS, dto) };
}

/** The whole, as `GET /walkthroughs/{id}` answers. */
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

/** Whether any of the texts of `subject` (a step or the head) fulfils `test`. */
export function some(subject, test) {
  return Object.values(subject.fields).some(test);
}

/** The head and the steps. */
export function subjects(it) {
  return [it.head, ...it.steps];
}

/** Whether anything is not saved. */
export function isUnsaved(it) {
  return subjects(it).some((subject) => some(subject, isDirty));
}

/** What is to be sent of `subject`: null, or its members with the texts that they were made of. */
export function changes(subject) {
  const all = Object.entries(subject.fields).filter(([, it]) => isSendable(it));
  if (all.length === 0 || subject.gone) return null;
  return {
    body: Object.fromEntries(all.map(([name, it]) => [name, toValue(name, it.text)])),
    sent: Object.fromEntries(all.map(([name, it]) => [name, it.text])),
  };
}

/** The server took `sent`, and answered with `dto`. */
export function saved(subject, sent, dto, focus = () => false) {
  for (const [name, it] of Object.entries(subject.fields)) {
    const value = toText(name, dto[name]);
    if (name in sent) taken(it, sent[name], value, focus(subject, name));
    else receive(it, value, focus(subject, name));
  }
}

/**
 * The server has `dto` now. Gives what a person should be told: `added` and `changed` ids of steps, `removed` steps.
 * A step that is gone stays while it has texts that are not saved.
 */
export function merge(it, dto, focus = () => false) {
  const told = { added: [], changed: [], removed: [], moved: false };
  it.revision = dto.revision;
  it.info = info(dto);
  for (const [name, own] of Object.entries(it.head.fields)) receive(own, toText(name, dto[name]), focus(it.head, name));
  const mine = new Map(it.steps.map((own) => [own.id, own]));
  const before = it.steps.filter((own) => !own.gone).map((own) => own.id);
  const steps = dto.steps.map((theirs) => {
    const own = mine.get(theirs.id);
    if (!own) {
      told.added.push(theirs.id);
      return step(theirs);
    }
    mine.delete(theirs.id);
    own.gone = false;
    own.key = theirs.key ?? null;
    own.metadata = theirs.metadata ?? {};
    for (const [name, text] of Object.entries(own.fields)) {
      const value = toText(name, theirs[name]);
      if (value !== text.base && !told.changed.includes(own.id)) told.changed.push(own.id);
      receive(text, value, focus(own, name));
    }
    return own;
  });
  for (const own of mine.values()) {
    if (!own.gone) told.removed.push(own);
    if (!some(own, isDirty)) continue;
    own.gone = true;
    // Where it stood: after the last one before it that is still there.
    const at = it.steps.indexOf(own);
    const previous = it.steps.slice(0, at).reverse().find((other) => steps.includes(other));
    steps.splice(previous ? steps.indexOf(previous) + 1 : 0, 0, own);
  }
  const after = steps.filter((own) => before.includes(own.id) && !own.gone).map((own) => own.id);
  told.moved = before.filter((id) => after.includes(id)).join() !== after.join();
  it.steps = steps;
  return told;
}

/** A step as the API takes it back. */
export function toStep(own) {
  const texts = Object.entries(own.fields).map(([name, it]) => [name, toValue(name, it.text)]);
  return { id: own.id, key: own.key, metadata: own.metadata, ...Object.fromEntries(texts) };
}

/** The id of the step that `id` comes after, among those that the server has; null for the first. */
export function previous(it, id) {
  const steps = it.steps.filter((own) => !own.gone || own.id === id);
  const at = steps.findIndex((own) => own.id === id);
  return at > 0 ? steps[at - 1].id : null;
}

/** Puts the step `id` after the step `after` (null: first). */
export function moveAfter(it, id, after) {
  const own = it.steps.find((other) => other.id === id);
  const rest = it.steps.filter((other) => other !== own);
  if (!own || id === after) return;
  const at = after === null ? 0 : rest.findIndex((other) => other.id === after) + 1;
  rest.splice(at, 0, own);
  it.steps = rest;
}

/**
 * In which section a step belongs that was put between two others: its own when a neighbour is in it, else that of the
 * neighbours.
 */
export function sectionBetween(own, before, after) {
  const around = [before, after].filter((section) => section !== undefined);
  if (around.length === 0 || around.includes(own)) return own;
  return around[0];
}

/** What publishing asks for and is empty: names of texts. The same rule as in the core (`missing_field`). */
export function missing(kind, own) {
  const wanted = ["content"];
  if (kind === "troubleshooting" || kind === "integration") wanted.push("context_for_agent");
  if (kind === "installer" || kind === "integration") wanted.push("operations_for_agent");
  return wanted.filter((name) => own.fields[name].text.trim() === "");
}
