// Reorders the walkthroughs of a server by drag and drop. Without JavaScript, the arrow buttons do the same.
import { api } from "./console.js";

let dragged = null;
let before = [];

const ids = (list) => [...list.children].map((row) => row.dataset.id);

function announce(text) {
  document.getElementById("list-status").textContent = text;
}

document.addEventListener("dragstart", (event) => {
  const row = event.target.closest?.(".assigned > li");
  if (!row) return;
  dragged = row;
  before = ids(row.parentElement);
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", row.dataset.title);
  row.classList.add("dragged");
});

document.addEventListener("dragover", (event) => {
  const row = event.target.closest?.(".assigned > li");
  if (!dragged || !row || row.parentElement !== dragged.parentElement) return;
  event.preventDefault();
  if (row === dragged) return;
  const box = row.getBoundingClientRect();
  if (event.clientY < box.top + box.height / 2) row.before(dragged);
  else row.after(dragged);
});

document.addEventListener("drop", (event) => {
  if (dragged) event.preventDefault();
});

document.addEventListener("dragend", async () => {
  const row = dragged;
  dragged = null;
  if (!row) return;
  row.classList.remove("dragged");
  const list = row.parentElement;
  const order = ids(list);
  if (order.join() === before.join()) return;
  try {
    const response = await api("PUT", list.dataset.order, { body: order });
    if (!response.ok) throw new Error((await response.json()).detail);
    announce(`“${row.dataset.title}” moved to position ${order.indexOf(row.dataset.id) + 1} of ${order.length}.`);
    for (const [at, item] of [...list.children].entries()) {
      item.querySelector("[id^=up-]").disabled = at === 0;
      item.querySelector("[id^=down-]").disabled = at === order.length - 1;
    }
  } catch (error) {
    for (const id of before) list.append(list.querySelector(`[data-id="${id}"]`));
    announce(`The order was not saved. ${error.message}`);
    const note = document.createElement("p");
    note.className = "field-error";
    note.textContent = `The order was not saved: ${error.message || "the server did not respond"}. Reload the page.`;
    list.after(note);
  }
});

// A rejected change means that another user has changed the list, so show the current state.
document.addEventListener("htmx:responseError", () => location.reload());
document.addEventListener("htmx:sendError", () => announce("The server did not respond. Try again."));
