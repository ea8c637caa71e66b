// What the buttons above a Markdown field do to its text, and how long texts are. Pure.

/** Bytes of a text in UTF-8. */
export function bytes(text) {
  return new TextEncoder().encode(text).length;
}

/** Characters as the server counts them. */
export function characters(text) {
  return [...text].length;
}

/**
 * What a button does: `{text, start, end}` is a text with a selection; gives what replaces which part, and what is selected
 * then: `{from, to, insert, start, end}`.
 */
export function apply(kind, { text, start, end }) {
  const chosen = text.slice(start, end);
  switch (kind) {
    case "bold": return around(text, start, end, "**", "bold text");
    case "italic": return around(text, start, end, "_", "italic text");
    case "code": return around(text, start, end, "`", "code");
    case "block": return block(text, start, end);
    case "link": return link(start, end, chosen);
    case "list": return lines(text, start, end, () => "- ", /^[-*+] /);
    case "numbers": return lines(text, start, end, (index) => `${index + 1}. `, /^\d+[.)] /);
    default: throw new Error(`no such button: ${kind}`);
  }
}

function around(text, start, end, mark, placeholder) {
  const n = mark.length;
  // Once more takes it away again, whether the marks are selected or stand around what is.
  if (text.slice(start - n, start) === mark && text.slice(end, end + n) === mark) {
    return { from: start - n, to: end + n, insert: text.slice(start, end), start: start - n, end: end - n };
  }
  const chosen = text.slice(start, end);
  if (chosen.length >= 2 * n + 1 && chosen.startsWith(mark) && chosen.endsWith(mark)) {
    return { from: start, to: end, insert: chosen.slice(n, -n), start, end: end - 2 * n };
  }
  const inner = chosen || placeholder;
  return { from: start, to: end, insert: mark + inner + mark, start: start + n, end: start + n + inner.length };
}

function link(start, end, chosen) {
  if (/^https?:\/\/\S+$/.test(chosen)) {
    return { from: start, to: end, insert: `[text](${chosen})`, start: start + 1, end: start + 5 };
  }
  const label = chosen || "text";
  const at = start + label.length + 3;
  return { from: start, to: end, insert: `[${label}](https://)`, start: at, end: at + 8 };
}

function block(text, start, end) {
  const chosen = text.slice(start, end);
  const inner = chosen || "code";
  // A fence that the text itself does not have.
  let fence = "```";
  while (inner.includes(fence)) fence += "`";
  const before = start === 0 || text[start - 1] === "\n" ? "" : "\n";
  const after = end === text.length || text[end] === "\n" ? "" : "\n";
  const open = `${before}${fence}\n`;
  const close = `${inner.endsWith("\n") ? "" : "\n"}${fence}${after}`;
  const at = start + open.length;
  return { from: start, to: end, insert: open + inner + close, start: at, end: at + inner.length };
}

function lines(text, start, end, mark, marked) {
  const from = text.lastIndexOf("\n", start - 1) + 1;
  const next = text.indexOf("\n", Math.max(end, from));
  const to = next < 0 ? text.length : next;
  const all = text.slice(from, to).split("\n");
  const off = all.every((line) => marked.test(line));
  const insert = all.map((line, index) => (off ? line.replace(marked, "") : mark(index) + line)).join("\n");
  return { from, to, insert, start: from, end: from + insert.length };
}
