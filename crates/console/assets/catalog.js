// The import of a catalogue entry from a file.

import { plainMessage } from "./messages.js";

const form = document.getElementById("catalog-import");
const by = (id) => document.getElementById(`catalog-${id}`);
const MAX_BYTES = 256 * 1024;

form.hidden = false;

function problem(text) {
  by("state").textContent = "";
  by("problem").hidden = text === "";
  by("problem").textContent = text;
}

async function send(file) {
  const headers = {
    Accept: "application/json",
    "Content-Type": /\.json$/i.test(file.name) ? "application/json" : "application/yaml",
    "Waypost-Organization": document.body.dataset.org,
  };
  const query = new URLSearchParams({ filename: file.name.slice(0, 200) });
  const response = await fetch(`/api/v1/catalog/import?${query}`, { method: "POST", headers, body: await file.arrayBuffer() });
  if (response.ok) return "";
  const body = await response.json().catch(() => ({}));
  return plainMessage(body.detail ?? `The import failed with status ${response.status}.`, body.field);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = by("file").files;
  if (!file) return;
  if (file.size > MAX_BYTES) return problem("The file is larger than 256 KiB.");
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  problem("");
  by("state").textContent = "Importing…";
  try {
    const message = await send(file);
    if (message) problem(message);
    else {
      // A selected file would count as input that gets lost.
      form.reset();
      location.reload();
    }
  } catch {
    problem("The server did not respond. Check your connection, then import the file again.");
  }
  delete form.dataset.sent;
  button.disabled = false;
});
