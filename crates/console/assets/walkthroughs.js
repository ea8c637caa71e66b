// The list of walkthroughs: row selection and the bar for bulk actions.

function update(form) {
  const boxes = [...form.querySelectorAll('input[name="ids"]')];
  const selected = boxes.filter((box) => box.checked).length;
  const all = form.querySelector("[data-bulk-all]");
  all.checked = selected > 0 && selected === boxes.length;
  all.indeterminate = selected > 0 && selected < boxes.length;
  const bar = form.querySelector("[data-bulk-bar]");
  bar.hidden = selected === 0;
  form.querySelector("[data-bulk-count]").textContent = `${selected} selected`;
  const action = form.querySelector("[data-bulk-action]");
  const server = form.querySelector("[data-bulk-server]");
  if (server) server.hidden = action.value !== "assign";
}

function updateAll(root) {
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
document.addEventListener("htmx:afterSettle", () => updateAll(document));
window.addEventListener("pageshow", () => updateAll(document));
updateAll(document);
