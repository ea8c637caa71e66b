// The range of the filter: a preset empties the days, a day means that days are meant.
const range = document.getElementById("f-range");
const days = ["f-from", "f-to"].map((id) => document.getElementById(id));
range.addEventListener("change", () => {
  if (range.value !== "custom") for (const day of days) day.value = "";
});
for (const day of days) {
  day.addEventListener("input", () => { range.value = "custom"; });
}
