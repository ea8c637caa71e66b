// The list of walkthroughs: ticking rows, and the bar for what to do with the ticked ones.

function update(form) {
  const boxes = [...form.querySelectorAll('input[name="ids"]')];
  const ticked = boxes.filter((box) => box.checked).length;
  const all = form.querySelector("[data-bulk-all]");
  all.checked = ticked > 0 && ticked === boxes.length;
  all.indeterminate = ticked > 0 && ticked < boxes.length;
  const bar = form.querySelector("[data-bulk-bar]");
  bar.hidden = ticked === 0;
  form.querySelector("[data-bulk-count]").textContent = ticked === 1 ? "1 ticked" : `${ticked} ticked`;
  const action = form.querySelector("[data-bulk-action]");
  const server = form.querySelector("[data-bulk-server]");
  if (server) server.hidden = action.value !== "assign";
}

function begin(root) {
  for (const form of root.querySelectorAll("[data-bulk]")) update(form);
}

document.addEventListener("change", (event) => {
  const form = event.target.closest?.("[data-bulk]");
  if (!form) return;
  if ("bulkAll" in event.target.dataset) {
    for (const box of form.querySelectorAll('input[name="ids"]')) box.checked = event.target.checked;
  }
  update(form);
});
document.addEventListener("htmx:afterSettle", () => begin(document));
window.addEventListener("pageshow", () => begin(document));
begin(document);
