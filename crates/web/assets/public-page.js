// Copy buttons. Without this script the texts can still be selected: a click selects all of one.
const said = document.getElementById("said");

function select(code) {
  const range = document.createRange();
  range.selectNodeContents(code);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(code) {
  // The clipboard is there on https and on this machine only.
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      // Not allowed: the older way may be.
    }
  }
  select(code);
  return document.execCommand("copy");
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  const label = button.firstChild;
  button.addEventListener("click", async () => {
    const done = await copy(button.parentElement.querySelector("code"));
    label.textContent = done ? "Copied" : "Press Ctrl+C";
    said.textContent = done ? "Copied." : "The text is selected. Press Ctrl+C to copy it.";
    setTimeout(() => { label.textContent = "Copy"; said.textContent = ""; }, 2000);
  });
}
