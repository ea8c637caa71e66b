// The toolbar actions of the Markdown field, and text lengths. No side effects.

/** Returns the number of UTF-8 bytes of a text. */
export function bytes(text) {
  return new TextEncoder().encode(text).length;
}

/** Returns the number of characters (code points), as the server counts them. */
export function characters(text) {
  return [...text].length;
}

/**
 * Applies a toolbar action to a text with a selection (`{text, start, end}`). Returns the replacement and the new
 * selection: `{from, to, insert, start, end}`.
 */
export function apply(kind, { text, start, end }) {
  const selected = text.slice(start, end);
  switch (kind) {
    case "bold": return toggleMarks(text, start, end, "**", "bold text");
    case "italic": return toggleMarks(text, start, end, "_", "italic text");
    case "code": return toggleMarks(text, start, end, "`", "code");
    case "block": return insertBlock(text, start, end);
    case "link": return insertLink(start, end, selected);
    case "list": return toggleLines(text, start, end, () => "- ", /^[-*+] /);
    case "numbers": return toggleLines(text, start, end, (index) => `${index + 1}. `, /^\d+[.)] /);
    default: throw new Error(`no such button: ${kind}`);
  }
}

function toggleMarks(text, start, end, mark, placeholder) {
  const n = mark.length;
  // Applying the action again removes the marks, whether they are inside or around the selection.
  if (text.slice(start - n, start) === mark && text.slice(end, end + n) === mark) {
    return { from: start - n, to: end + n, insert: text.slice(start, end), start: start - n, end: end - n };
  }
  const selected = text.slice(start, end);
  if (selected.length >= 2 * n + 1 && selected.startsWith(mark) && selected.endsWith(mark)) {
    return { from: start, to: end, insert: selected.slice(n, -n), start, end: end - 2 * n };
  }
  const inner = selected || placeholder;
  return { from: start, to: end, insert: mark + inner + mark, start: start + n, end: start + n + inner.length };
}

function insertLink(start, end, selected) {
  if (/^https?:\/\/\S+$/.test(selected)) {
    return { from: start, to: end, insert: `[text](${selected})`, start: start + 1, end: start + 5 };
  }
  const label = selected || "text";
  const at = start + label.length + 3;
  return { from: start, to: end, insert: `[${label}](https://)`, start: at, end: at + 8 };
}

function insertBlock(text, start, end) {
  const selected = text.slice(start, end);
  const inner = selected || "code";
  // Uses a fence that the text does not contain.
  let fence = "```";
  while (inner.includes(fence)) fence += "`";
  const before = start === 0 || text[start - 1] === "\n" ? "" : "\n";
  const after = end === text.length || text[end] === "\n" ? "" : "\n";
  const open = `${before}${fence}\n`;
  const close = `${inner.endsWith("\n") ? "" : "\n"}${fence}${after}`;
  const at = start + open.length;
  return { from: start, to: end, insert: open + inner + close, start: at, end: at + inner.length };
}

function toggleLines(text, start, end, mark, marked) {
  const from = text.lastIndexOf("\n", start - 1) + 1;
  const next = text.indexOf("\n", Math.max(end, from));
  const to = next < 0 ? text.length : next;
  const all = text.slice(from, to).split("\n");
  const off = all.every((line) => marked.test(line));
  const insert = all.map((line, index) => (off ? line.replace(marked, "") : mark(index) + line)).join("\n");
  return { from, to, insert, start: from, end: from + insert.length };
}
