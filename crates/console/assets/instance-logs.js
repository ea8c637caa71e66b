// The log of an instance: the last lines, and further ones while it is followed. Lines are filtered in the page. Text of
// the log is only ever inserted as text.

import { api } from "./console.js";
import { el, say } from "./dom.js";
import { readEvents } from "./event-stream.js";
import { plainMessage } from "./messages.js";

const root = document.getElementById("logs");
const by = (id) => document.getElementById(`logs-${id}`);
const path = `/instances/${root.dataset.instance}/logs`;
/** The maximum number of lines in the page. The oldest are removed. */
const MAX_LINES = 5_000;
/** The pause before the connection is opened again. */
const RECONNECT_MS = 2_000;
const time = new Intl.DateTimeFormat(undefined, { month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

let following = null;
let shownCount = 0;

root.hidden = false;

function showProblem(text) {
  by("problem").hidden = text === "";
  say(by("problem"), text);
}

function isShown(line) {
  const stream = by("stream").value;
  if (stream && line.dataset.stream !== stream) return false;
  return line.dataset.text.includes(by("search").value.trim().toLowerCase());
}

function lineOf({ at, stream, text }) {
  const date = new Date(at);
  const line = el("div", { class: `log-line log-${stream}`, dataset: { stream, text: text.toLowerCase() } },
    el("time", { datetime: date.toISOString(), title: date.toISOString() }, time.format(date)),
    el("span", { class: "log-source" }, stream), el("span", { class: "log-text" }, text));
  line.hidden = !isShown(line);
  return line;
}

/** Appends lines, and keeps the view at the end if it was there. */
function append(lines) {
  const box = by("lines");
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const added = lines.map(lineOf);
  shownCount += added.filter((line) => !line.hidden).length;
  box.append(...added);
  while (box.childElementCount > MAX_LINES) {
    if (!box.firstElementChild.hidden) shownCount -= 1;
    box.firstElementChild.remove();
  }
  if (isAtEnd) box.scrollTop = box.scrollHeight;
  summarize();
}

function clear() {
  by("lines").replaceChildren();
  shownCount = 0;
}

function summarize() {
  const total = by("lines").childElementCount;
  const mode = following ? "Following the log. " : "";
  if (total === 0) say(by("state"), `${mode}No lines yet.`);
  else say(by("state"), shownCount === total ? `${mode}${total} ${total === 1 ? "line" : "lines"}` : `${mode}${shownCount} of ${total} lines match`);
}

function filter() {
  shownCount = 0;
  for (const line of by("lines").children) {
    line.hidden = !isShown(line);
    if (!line.hidden) shownCount += 1;
  }
  by("lines").scrollTop = by("lines").scrollHeight;
  summarize();
}

async function problemOf(response) {
  if (response.status === 401) return "Your session has expired. Reload the page to sign in again.";
  const body = await response.json().catch(() => ({}));
  return plainMessage(body.detail ?? `The request failed with status ${response.status}.`, body.field);
}

async function load() {
  showProblem("");
  try {
    const response = await api("GET", `${path}?tail=${by("tail").value}`);
    if (!response.ok) return showProblem(await problemOf(response));
    const { items } = await response.json();
    clear();
    append(items);
    by("lines").scrollTop = by("lines").scrollHeight;
  } catch {
    showProblem("The server did not respond. Check your connection, then reload the log.");
  }
}

function stop() {
  following?.abort();
  following = null;
  by("follow").setAttribute("aria-pressed", "false");
  by("follow").textContent = "Follow";
  by("reload").disabled = false;
  summarize();
}

/** Follows the log until it ends or `signal` is aborted. Returns the message of an error that ended it, or "". */
async function readLog(signal) {
  const response = await api("GET", `${path}?follow=true&tail=${by("tail").value}`, { headers: { Accept: "text/event-stream" }, signal });
  if (!response.ok) return problemOf(response);
  showProblem("");
  clear();
  summarize();
  let pending = [];
  const flush = () => {
    if (pending.length && !signal.aborted) append(pending);
    pending = [];
  };
  for await (const { name, data } of readEvents(response)) {
    if (signal.aborted) return "";
    const body = JSON.parse(data);
    if (name === "error") {
      flush();
      return plainMessage(body.detail ?? "The log ended.", body.field);
    }
    pending.push(body);
    // Many lines that arrive together are shown together.
    if (pending.length === 1) requestAnimationFrame(flush);
  }
  flush();
  return "";
}

async function follow() {
  const own = new AbortController();
  following = own;
  by("follow").setAttribute("aria-pressed", "true");
  by("follow").textContent = "Stop following";
  by("reload").disabled = true;
  while (following === own) {
    let problem;
    try {
      problem = await readLog(own.signal);
    } catch {
      problem = "";
    }
    if (following !== own) return;
    if (problem) {
      stop();
      return showProblem(problem);
    }
    showProblem("The connection was lost. Trying again…");
    await new Promise((done) => { setTimeout(done, RECONNECT_MS); });
  }
}

by("follow").addEventListener("click", () => (following ? stop() : follow()));
by("reload").addEventListener("click", load);
by("tail").addEventListener("change", () => {
  if (!following) return load();
  stop();
  follow();
});
by("search").addEventListener("input", filter);
by("stream").addEventListener("change", filter);
by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  delete event.target.dataset.sent;
});
window.addEventListener("pagehide", () => following?.abort());
load();
