// Ticking many rows: [data-check-all=NAME] ticks every box of that name in its form, [data-ticked=NAME] says how many are.
function boxes(form, name) {
  return [...form.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)];
}

function say(form) {
  for (const place of form.querySelectorAll("[data-ticked]")) {
    const count = boxes(form, place.dataset.ticked).filter((box) => box.checked).length;
    place.textContent = count ? `(${count})` : "";
  }
  for (const all of form.querySelectorAll("[data-check-all]")) {
    const own = boxes(form, all.dataset.checkAll);
    const count = own.filter((box) => box.checked).length;
    all.checked = count > 0 && count === own.length;
    all.indeterminate = count > 0 && count < own.length;
  }
}

document.addEventListener("change", (event) => {
  const form = event.target.form;
  if (!form || event.target.type !== "checkbox") return;
  const { checkAll } = event.target.dataset;
  if (checkAll) {
    for (const box of boxes(form, checkAll)) box.checked = event.target.checked;
  }
  say(form);
});

window.addEventListener("pageshow", () => document.querySelectorAll("form").forEach(say));
