// Copy buttons. Without this script, clicking a text selects all of it.
const copyStatus = document.getElementById("copy-status");

function select(code) {
  const range = document.createRange();
  range.selectNodeContents(code);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

async function copy(code) {
  // The clipboard API exists only on https and on localhost.
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      // Permission denied. Fall back to the older API.
    }
  }
  select(code);
  return document.execCommand("copy");
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  const label = button.firstChild;
  button.addEventListener("click", async () => {
    const copied = await copy(button.parentElement.querySelector("code"));
    label.textContent = copied ? "Copied" : "Press Ctrl+C";
    copyStatus.textContent = copied ? "Copied." : "The text is selected. Press Ctrl+C to copy it.";
    setTimeout(() => { label.textContent = "Copy"; copyStatus.textContent = ""; }, 2000);
  });
}
