// Dragging the walkthroughs of a server into another order. Without this, the arrows beside each of them do the same.
import { api } from "./console.js";

let dragged = null;
let before = [];

const ids = (list) => [...list.children].map((row) => row.dataset.id);

function say(text) {
  document.getElementById("said").textContent = text;
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
    const answer = await api("PUT", list.dataset.order, { body: order });
    if (!answer.ok) throw new Error((await answer.json()).detail);
    say(`“${row.dataset.title}” is now number ${order.indexOf(row.dataset.id) + 1} of ${order.length}.`);
    for (const [at, item] of [...list.children].entries()) {
      item.querySelector("[id^=up-]").disabled = at === 0;
      item.querySelector("[id^=down-]").disabled = at === order.length - 1;
    }
  } catch (error) {
    for (const id of before) list.append(list.querySelector(`[data-id="${id}"]`));
    say(`The order was not saved. ${error.message}`);
    const note = document.createElement("p");
    note.className = "wrong";
    note.textContent = `The order was not saved: ${error.message || "the server gave no answer"}. Load the page again.`;
    list.after(note);
  }
});

// A change that was refused: somebody else has changed the list meanwhile. The page as it is now says more than words.
document.addEventListener("htmx:responseError", () => location.reload());
document.addEventListener("htmx:sendError", () => say("The server gave no answer. Try again."));
