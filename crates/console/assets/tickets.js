// Row selection: [data-select-all=NAME] toggles all checkboxes with that name in its form, and [data-selected-count]
// shows the number of selected checkboxes.
function boxes(form, name) {
  return [...form.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)];
}

function update(form) {
  for (const output of form.querySelectorAll("[data-selected-count]")) {
    const count = boxes(form, output.dataset.selectedCount).filter((box) => box.checked).length;
    output.textContent = count ? `(${count})` : "";
  }
  for (const all of form.querySelectorAll("[data-select-all]")) {
    const own = boxes(form, all.dataset.selectAll);
    const count = own.filter((box) => box.checked).length;
    all.checked = count > 0 && count === own.length;
    all.indeterminate = count > 0 && count < own.length;
  }
}

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (!form || event.target.type !== "checkbox") return;
  const { selectAll } = event.target.dataset;
  if (selectAll) {
    for (const box of boxes(form, selectAll)) box.checked = event.target.checked;
  }
  update(form);
});

window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach(update));
