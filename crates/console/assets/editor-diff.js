// Compares two texts for display: by line, and by word within changed lines. No side effects.

/** Above this number of pairs, the comparison is too slow while typing, so the middle becomes one change. */
const MAX_PAIRS = 1_000_000;

/** Returns the parts of `from` and `to` in order: `{kind: "same" | "del" | "ins", text}`. */
export function compare(from, to) {
  const lines = (text) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const parts = [];
  let del = "";
  let ins = "";
  const flush = () => {
    if (del && ins) parts.push(...compareLists(splitWords(del), splitWords(ins)));
    else if (del) parts.push({ kind: "del", text: del });
    else if (ins) parts.push({ kind: "ins", text: ins });
    del = ins = "";
  };
  for (const part of compareLists(lines(from), lines(to))) {
    if (part.kind === "del") del += part.text;
    else if (part.kind === "ins") ins += part.text;
    else {
      flush();
      parts.push(part);
    }
  }
  flush();
  return mergeParts(parts);
}

function splitWords(text) {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}

/** Compares two lists of texts by their longest common subsequence. */
function compareLists(from, to) {
  let start = 0;
  while (start < from.length && start < to.length && from[start] === to[start]) start += 1;
  let end = 0;
  while (end < from.length - start && end < to.length - start && from.at(-1 - end) === to.at(-1 - end)) end += 1;
  const same = (texts) => texts.map((text) => ({ kind: "same", text }));
  const head = same(from.slice(0, start));
  const tail = same(from.slice(from.length - end));
  return mergeParts([...head, ...compareMiddle(from.slice(start, from.length - end), to.slice(start, to.length - end)), ...tail]);
}

function compareMiddle(from, to) {
  if (from.length * to.length > MAX_PAIRS) {
    return [{ kind: "del", text: from.join("") }, { kind: "ins", text: to.join("") }];
  }
  const width = to.length + 1;
  const length = new Uint32Array((from.length + 1) * width);
  for (let i = from.length - 1; i >= 0; i -= 1) {
    for (let j = to.length - 1; j >= 0; j -= 1) {
      const at = i * width + j;
      length[at] = from[i] === to[j] ? length[at + width + 1] + 1 : Math.max(length[at + width], length[at + 1]);
    }
  }
  const parts = [];
  let [i, j] = [0, 0];
  while (i < from.length && j < to.length) {
    if (from[i] === to[j]) {
      parts.push({ kind: "same", text: from[i] });
      i += 1;
      j += 1;
    } else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) {
      parts.push({ kind: "del", text: from[i] });
      i += 1;
    } else {
      parts.push({ kind: "ins", text: to[j] });
      j += 1;
    }
  }
  for (; i < from.length; i += 1) parts.push({ kind: "del", text: from[i] });
  for (; j < to.length; j += 1) parts.push({ kind: "ins", text: to[j] });
  return parts;
}

function mergeParts(parts) {
  const out = [];
  for (const part of parts) {
    if (part.text === "") continue;
    if (out.at(-1)?.kind === part.kind) out.at(-1).text += part.text;
    else out.push({ ...part });
  }
  return out;
}
