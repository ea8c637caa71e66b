// The period filter: selecting a preset clears the days, and entering a day selects the custom range.
const range = document.getElementById("f-range");
const days = ["f-from", "f-to"].map((id) => document.getElementById(id));
range.addEventListener("change", () => {
  if (range.value !== "custom") for (const day of days) day.value = "";
});
for (const day of days) {
  day.addEventListener("input", () => { range.value = "custom"; });
}
